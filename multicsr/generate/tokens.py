"""Prompts as the token ids that a model reads; shared by the engines that hold a tokenizer."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from multicsr.config import LLMConfig
from multicsr.errors import ConfigError
from multicsr.generate.engine import Refusal
from multicsr.rows import Reason


class PromptTokens:
    """A tokenizer, the chat template if it is to be used, and the model's context.

    Raises:
        ConfigError: a chat template is asked for and absent.
    """

    def __init__(
        self, config: LLMConfig, tokenizer: PreTrainedTokenizerBase, context: int | None, *, has_encoder: bool
    ) -> None:
        """`context` is the most tokens the model can take; None where positions are not bounded."""
        self._chat = wants_chat(config, tokenizer)
        self._tokenizer = tokenizer
        self._context = context
        self._has_encoder = has_encoder

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of the prompts, in the chat template if there is to be one."""
        if not prompts:
            return []
        texts = [self._in_chat(prompt) for prompt in prompts] if self._chat else list(prompts)
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=not self._chat)["input_ids"]
        return ids

    def too_long(self, prompt: Sequence[int], max_new_tokens: int) -> Refusal | None:
        """A refusal when prompt and continuation do not fit into the context."""
        needed = len(prompt) + (0 if self._has_encoder else max_new_tokens)
        if self._context is None or needed <= self._context:
            return None
        return Refusal(
            Reason.PROMPT_TOO_LONG, f"{len(prompt)} + {max_new_tokens} tokens, context {self._context}"
        )

    def label_ids(self, prompt: str, labels: Sequence[str]) -> list[int]:
        """The token that each label is after a prompt; the prompts of a set end alike, so one will do.

        Raises:
            ConfigError: a label is more than one token.
        """
        if self._has_encoder:
            continuations = self._tokenizer(list(labels), add_special_tokens=False)["input_ids"]
        else:
            text = self._in_chat(prompt) if self._chat else prompt
            special = not self._chat
            base = self._tokenizer(text, add_special_tokens=special)["input_ids"]
            texts = [text + label for label in labels]
            whole = self._tokenizer(texts, add_special_tokens=special)["input_ids"]
            continuations = [ids[len(base) :] if ids[: len(base)] == base else [] for ids in whole]
        for label, ids in zip(labels, continuations, strict=True):
            if len(ids) != 1:
                raise ConfigError(
                    f"generate.prompts: score label {label!r} is not one token of this model after the "
                    "prompt; change score_labels, or set score.method to stated"
                )
        return [ids[0] for ids in continuations]

    def _in_chat(self, prompt: str) -> str:
        message = [{"role": "user", "content": prompt}]
        return str(self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))


def wants_chat(config: LLMConfig, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether prompts go into the chat template. Raises ConfigError when one is asked for and absent."""
    if config.chat_template and not tokenizer.chat_template:
        raise ConfigError(f"llm.chat_template: {config.model} has none; leave the setting out")
    return bool(tokenizer.chat_template) if config.chat_template is None else config.chat_template
