"""Loader of the engine that a configuration names; the only module that knows all engines."""

from multicsr.config import Config
from multicsr.llm.base import Engine


def load_engine(config: Config) -> Engine:
    """Load the model and return the engine that `llm.engine` names.

    Raises:
        ConfigError: the model cannot be loaded as configured.
    """
    if config.llm.engine == "fake":
        from multicsr.llm.fake import FakeEngine

        return FakeEngine()
    if config.llm.engine == "openai" and config.llm.batch:
        from multicsr.llm.openai.batch_engine import OpenAIBatchEngine

        return OpenAIBatchEngine(config)
    if config.llm.engine == "openai":
        from multicsr.llm.openai.engine import OpenAIEngine

        return OpenAIEngine(config)
    if config.llm.engine == "vllm":
        from multicsr.llm.vllm.engine import VllmEngine

        return VllmEngine(config)
    from multicsr.llm.transformers.engine import TransformersEngine

    return TransformersEngine(config)
