"""Lookup of the LLM: any model of `resolve_model`, or a GGUF model, which is converted at its first use."""

from multicsr.config import LLMConfig
from multicsr.models.gguf_file import find_gguf
from multicsr.models.resolve import digest_model, resolve_model

_SETTING = "llm.model"


def locate_llm(name: str, setting: str = _SETTING) -> str:
    """Return the path of the LLM with this name, or the Hugging Face id.

    Args:
        name: name of the model.
        setting: the setting that it came from, for messages.

    Raises:
        ConfigError: there is no such model.
    """
    gguf = find_gguf(name, setting)
    return resolve_model(name, setting) if gguf is None else str(gguf.parts[0])


def resolve_llm(config: LLMConfig) -> str:
    """Turn `llm.model` into something `from_pretrained` loads.

    Raises:
        ConfigError: there is no such model, or a GGUF model cannot be converted.
    """
    gguf = find_gguf(config.model, _SETTING)
    if gguf is None:
        return resolve_model(config.model, _SETTING)
    from multicsr.models.gguf_conversion import converted

    return str(converted(gguf, config.dtype, _SETTING))


def digest_llm(config: LLMConfig) -> str:
    """Return a hash of the bytes of `llm.model`; empty for a Hugging Face id.

    That of a GGUF model holds the version of the conversion, too.

    Raises:
        ConfigError: there is no such model.
    """
    gguf = find_gguf(config.model, _SETTING)
    if gguf is None:
        return digest_model(resolve_model(config.model, _SETTING))
    from multicsr.models.gguf_conversion import CONVERSION

    return f"gguf-{CONVERSION}-{gguf.digest()}"
