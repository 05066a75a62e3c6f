"""Loader of the tokenizer and the configuration of an LLM, without its weights."""

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from multicsr.config import LLMConfig
from multicsr.models.llm_weights import resolve_llm
from multicsr.models.resolve import loading_model


def load_tokenizer(config: LLMConfig) -> tuple[PreTrainedTokenizerBase, PreTrainedConfig]:
    """Load the tokenizer and the configuration of the model.

    Raises:
        ConfigError: they cannot be loaded.
    """
    name = resolve_llm(config)
    with loading_model(config.model, "llm.model"):
        model = AutoConfig.from_pretrained(name, revision=config.revision)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=config.revision)
    return tokenizer, model
