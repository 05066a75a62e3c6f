"""Training objectives by name: those that are built in, and those of other packages.

An entry point of the group `multicsr.objectives` names an `Objective` of a package.
"""

from multicsr.config import TrainConfig
from multicsr.config.training import OBJECTIVE_NAMES
from multicsr.errors import ConfigError
from multicsr.stages.train.objectives.losses import OBJECTIVES, Objective


def load_objective(name: str) -> Objective:
    """Return the objective that has this name.

    Raises:
        ConfigError: there is none, or the package that has it cannot be imported or names no `Objective`.
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    extension = OBJECTIVE_NAMES.require(name)
    found = extension.load()
    if not isinstance(found, Objective):
        raise extension.unusable(f"is no {Objective.__module__}.Objective")
    return found


def check_objective(config: TrainConfig) -> None:
    """Raise if settings have no effect with an objective of a package; the configuration has no code of it.

    Raises:
        ConfigError: see `load_objective`; or a mask or labelled triplets are given, which it does not use.
    """
    if config.objective in OBJECTIVES:
        return
    objective, name = load_objective(config.objective), f"train.objective: {config.objective}"
    if config.mask is not None and objective.keep is None:
        raise ConfigError(f"train.mask has no effect with {name}; set it to null")
    if config.mask is None and objective.compares_same:
        raise ConfigError(f"{name} needs a mask; set train.mask")
    if config.extra_triplets and objective.uses_scores:
        raise ConfigError(f"train.extra_triplets: {name} trains on scores, which labelled triplets lack")
    if config.extra_triplets and objective.sentences == ("text",):
        raise ConfigError(f"train.extra_triplets has no effect with {name}, which reads premises")


def package_of_objective(name: str) -> str | None:
    """Return the package of an objective with its version; None if the objective is built in.

    Raises:
        ConfigError: there is no such objective.
    """
    return None if name in OBJECTIVES else OBJECTIVE_NAMES.require(name).origin
