"""Device that the models of an actor run on."""

import torch

from multicsr.config import LLMConfig
from multicsr.errors import ConfigError


def choose_device(config: LLMConfig) -> str:
    """Return `cuda` or `cpu`, as `llm.device` asks for it.

    Raises:
        ConfigError: it asks for a GPU, and there is none.
    """
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("llm.device is cuda, but there is no GPU here; set generate.gpus_per_actor to 1")
    return config.device
