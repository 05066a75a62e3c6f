"""The settings of a training that depend on its encoder, where they are not given.

An encoder that is trained for sentences already is changed little: one epoch at a low rate, and merges of the
trained encoder with the one that it was. A raw encoder has nothing to lose.
"""

from collections.abc import Mapping
from types import MappingProxyType

from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError
from multicsr.models.encoder_kind import is_sentence_encoder

_TRAINED: Mapping[str, object] = MappingProxyType({"epochs": 1, "learning_rate": 2e-5})
"""Defaults for an encoder that is trained already; those for a raw one are the defaults of `TrainConfig`."""
_MERGE = [0.25, 0.5, 0.75]
"""Default of `train.merge` for an encoder that is trained already."""


def resolved(config: Config) -> Config:
    """Return the configuration with the recipe of its training.

    Raises:
        ConfigError: see `resolve_recipe`.
    """
    train = resolve_recipe(config.train, has_held_out=config.evaluate.held_out > 0)
    return config.model_copy(update={"train": train})


def resolve_recipe(config: TrainConfig, *, has_held_out: bool = False) -> TrainConfig:
    """Return the settings with a value for each of `epochs`, `learning_rate` and `merge`.

    Args:
        config: the settings of the training.
        has_held_out: True if triplets are held out of the training, which choose where there is no dev.

    Raises:
        ConfigError: there is no such encoder, or `keep` has no effect.
    """
    given = config.model_fields_set
    is_trained = is_sentence_encoder(config.encoder, "train.encoder")
    update: dict[str, object] = {}
    if is_trained:
        update = {name: value for name, value in _TRAINED.items() if name not in given}
    if config.steps is not None:
        update.pop("epochs", None)
    if config.merge is None:
        can_choose = config.dev is not None or has_held_out
        update["merge"] = _MERGE if is_trained and can_choose else []
        if config.keep and not can_choose:
            raise ConfigError("train.keep has no effect: nothing chooses among merges; set train.dev")
        if config.keep and not is_trained:
            raise ConfigError(
                f"train.keep has no effect: {config.encoder} is not trained yet, so nothing is merged; set "
                "train.merge, such as [0.25, 0.5, 0.75]"
            )
    return config.model_copy(update=update)
