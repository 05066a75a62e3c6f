"""Loader of the engine that a configuration names; the only module that knows all engines."""

from typing import TYPE_CHECKING

from multicsr.config import Config
from multicsr.llm.base import Engine
from multicsr.prompts import load_prompts

if TYPE_CHECKING:
    from multicsr.llm.token_engine import TokenEngine


def load_engine(config: Config) -> Engine:
    """Load the model and return the engine that `llm.engine` names.

    Raises:
        ConfigError: the model cannot be loaded as configured.
    """
    if config.llm.engine == "fake":
        from multicsr.llm.fake import FakeEngine

        return FakeEngine(load_prompts(config.generate.prompts).score_scale)
    if config.llm.engine == "openai" and config.llm.batch:
        from multicsr.llm.openai.batch_engine import OpenAIBatchEngine

        return OpenAIBatchEngine(config)
    if config.llm.engine == "openai":
        from multicsr.llm.openai.engine import OpenAIEngine

        return OpenAIEngine(config)
    return load_token_engine(config)


def load_token_engine(config: Config) -> "TokenEngine":
    """Load the model and return the engine `vllm` or `transformers`, which sees tokens.

    Raises:
        ConfigError: the model cannot be loaded as configured.
    """
    if config.llm.engine == "vllm":
        from multicsr.llm.vllm.engine import VllmEngine

        return VllmEngine(config)
    from multicsr.llm.transformers.engine import TransformersEngine

    return TransformersEngine(config)
