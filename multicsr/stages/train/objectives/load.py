"""Training objectives by name: those that are built in, and those of other packages.

An entry point of the group `multicsr.objectives` names an `Objective` of a package.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from multicsr.config import TrainConfig
from multicsr.config.training import OBJECTIVE_NAMES
from multicsr.errors import ConfigError, RunError
from multicsr.extensions import Extension
from multicsr.stages.train.objectives.losses import OBJECTIVES, TRIPLET, Objective

_SENTENCES = tuple(TRIPLET[:size] for size in (1, 2, 3))
"""Columns that an objective may read."""


def load_objective(name: str) -> Objective:
    """Return the objective that has this name.

    Raises:
        ConfigError: there is none, or the package that has it cannot be imported or names no `Objective` that
            can be trained with.
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    extension = OBJECTIVE_NAMES.require(name)
    found = extension.load()
    if not isinstance(found, Objective):
        raise extension.unusable(f"is no {Objective.__module__}.Objective")
    _require_usable(extension, found)
    keep = found.keep and _guarded(extension, found.keep)
    return replace(found, loss=_guarded(extension, found.loss), keep=keep)


def _require_usable(extension: Extension, objective: Objective) -> None:
    """Raise ConfigError unless columns and functions of an objective are such as the training can use."""
    if objective.sentences not in _SENTENCES:
        allowed = " or ".join(map(str, _SENTENCES))
        raise extension.unusable(f"reads the columns {objective.sentences!r}; a training reads {allowed}")
    extension.require_callable(objective.loss, 1, "has as `loss`")
    if objective.keep is not None:
        extension.require_callable(objective.keep, 3, "has as `keep`")
    if objective.needs_mask and objective.keep is None:
        raise extension.unusable("needs a mask and has no `keep`, its function")


def _guarded(extension: Extension, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function of a package whose exceptions name it, except those of memory and of workers."""

    def call(*arguments: object) -> Tensor:
        with extension.calling(torch.OutOfMemoryError, torch.distributed.DistError):
            result = function(*arguments)
        if not isinstance(result, Tensor):
            raise RunError(f"{extension} returned {result!r}, which is no tensor")
        return result

    return call


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
    if config.mask is None and objective.needs_mask:
        raise ConfigError(f"{name} needs a mask; set train.mask")
    if config.extra_triplets and objective.uses_scores:
        raise ConfigError(f"train.extra_triplets: {name} trains on scores, which labelled triplets lack")
    if config.extra_triplets and objective.sentences == ("text",):
        raise ConfigError(f"train.extra_triplets has no effect with {name}, which reads premises")
    if config.extra_triplets and not objective.takes_labelled:
        raise ConfigError(
            f"train.extra_triplets: {name} does not take rows with weights or without a hard negative "
            "(Objective.takes_labelled); leave them out"
        )


def package_of_objective(name: str) -> str | None:
    """Return the package of an objective with its version; None if the objective is built in.

    Raises:
        ConfigError: there is no such objective.
    """
    return None if name in OBJECTIVES else OBJECTIVE_NAMES.require(name).origin
