"""Choice of the prompt set for `generate.prompts: auto`, by the kind of LLM that is to write.

A chat model of some size follows an instruction. A base model only continues a text, and a small model loses
the instruction: both need demonstrations.
"""

from typing import NamedTuple

from multicsr.config import Config, LLMConfig
from multicsr.errors import ConfigError
from multicsr.models.resolve import TINYLM
from multicsr.prompts import AUTO

ZERO_SHOT, FEW_SHOT, FOR_ENCODER_DECODERS = "syncse", "fewshot", "reference"
SMALL = 2_000_000_000
"""Number of parameters below which a chat model gets demonstrations, too. SmolLM2 with 0.135e9 needs them;
where between it and models of several 1e9 the limit lies was not measured."""


class PromptChoice(NamedTuple):
    """A prompt set, and the reason for it."""

    name: str
    why: str

    def __str__(self) -> str:
        """Return the choice as one line for the terminal, the manifest and the report."""
        return f"prompt set {self.name}, because {self.why}"


def choose_prompts(config: LLMConfig) -> PromptChoice:
    """Return the prompt set that suits an LLM. The weights are not loaded.

    Raises:
        ConfigError: tokenizer or configuration of the model cannot be loaded here.
    """
    if config.engine == "openai":
        return PromptChoice(ZERO_SHOT, "an endpoint answers chats, and its model's size is not known")
    if config.engine == "fake":
        return PromptChoice(ZERO_SHOT, "engine: fake reads no prompt")
    if config.model == TINYLM:
        return PromptChoice(ZERO_SHOT, f"{TINYLM} was trained on it")
    return _by_kind(config)


def with_chosen_prompts(config: Config) -> tuple[Config, PromptChoice | None]:
    """Return the configuration with the name of a prompt set in place of `auto`, and the choice.

    The choice is None if the configuration names a set. The driver calls it once, so that all actors use the
    same set.

    Raises:
        ConfigError: see `choose_prompts`; the message asks for the name of a set.
    """
    if config.generate.prompts != AUTO:
        return config, None
    try:
        choice = choose_prompts(config.llm)
    except ConfigError as error:
        raise ConfigError(f"generate.prompts: {AUTO} looks at the model, but {error}; name a set") from error
    generate = config.generate.model_copy(update={"prompts": choice.name})
    return config.model_copy(update={"generate": generate}), choice


def _by_kind(config: LLMConfig) -> PromptChoice:
    """Return the prompt set by architecture, chat template and number of parameters."""
    from multicsr.llm.load_tokenizer import load_tokenizer
    from multicsr.llm.prompt_tokens import wants_chat
    from multicsr.models.parameters import count_parameters

    tokenizer, model = load_tokenizer(config)
    if model.is_encoder_decoder:
        why = "the authors wrote it for encoder-decoder models"
        return PromptChoice(FOR_ENCODER_DECODERS, why)
    if not wants_chat(config, tokenizer):
        unset = "llm.chat_template is false" if tokenizer.chat_template else "the model has no chat template"
        return PromptChoice(FEW_SHOT, f"{unset} and only continues texts")
    billions = count_parameters(model, config.model) / 1e9
    if billions < SMALL / 1e9:
        return PromptChoice(FEW_SHOT, f"the model is small ({billions:.2f}B parameters)")
    return PromptChoice(
        ZERO_SHOT, f"the model follows instructions ({billions:.1f}B parameters, chat template)"
    )
