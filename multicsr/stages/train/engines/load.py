"""The choice of the engine: the only module that knows all engines."""

from importlib.util import find_spec

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.models.encoder import Encoder
from multicsr.stages.train.engines.base import TrainEngine, TrainState
from multicsr.stages.train.engines.torch import TorchEngine


def load_engine(encoder: Encoder, config: TrainConfig, state: TrainState | None) -> TrainEngine:
    """Return the engine that the configuration names, restored from `state` if it is given.

    Raises:
        ConfigError: DeepSpeed is not installed, or does not support the settings.
    """
    if config.deepspeed is None:
        return TorchEngine(encoder, config, state)
    if find_spec("deepspeed") is None:
        raise ConfigError("train.deepspeed: DeepSpeed is not installed; pip install 'multicsr[train]'")
    from multicsr.stages.train.engines.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(encoder, config, config.deepspeed, state)
