"""The parts of other packages that a configuration names, as they travel to workers."""

from multicsr.config import Config, TrainConfig
from multicsr.config.reject_reasons import REJECT_REASONS
from multicsr.config.training import OBJECTIVE_NAMES
from multicsr.config.triplets import METHODS
from multicsr.extensions import PinnedPart


def parts_of_generation(config: Config) -> list[PinnedPart]:
    """Return the scorer and the rules of packages, as they are on this machine.

    Raises:
        ConfigError: a package is not installed here.
    """
    return [
        *METHODS.pinned([config.score.method]),
        *REJECT_REASONS.pinned(config.generate.reject_reasons),
    ]


def parts_of_training(config: TrainConfig) -> list[PinnedPart]:
    """Return the objective if it is one of a package, as it is on this machine.

    Raises:
        ConfigError: the package is not installed here.
    """
    return OBJECTIVE_NAMES.pinned([config.objective])
