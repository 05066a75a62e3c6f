"""Decide which model becomes the current one.

A new model must be worse neither than the previous model nor than the best of the previous versions, so that
many small losses cannot add up. A version that a user rolled back from is not published again automatically.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.storage.versions import Version


class BestValue(NamedTuple):
    """The value of a metric and the version whose model reached it."""

    value: float
    version: int | None = None
    """Number of that version; None: the model of the current version, measured in this run."""


def check_tolerances(config: Config, tasks: Iterable[str]) -> None:
    """Raise ConfigError if `refresh.tolerances` names a task that `evaluate.data` does not have."""
    names = list(tasks)
    for name in config.refresh.tolerances:
        if name in names:
            continue
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]!r}?" if near else f"evaluate.data has {', '.join(names)}"
        raise ConfigError(f"refresh.tolerances: no task is called {name!r}; {remedy}")


def references(
    before: Mapping[str, float], known: Sequence[Version], tasks: Mapping[str, str], config: Config
) -> dict[str, BestValue]:
    """Return the reference value of every metric that a new model is compared with.

    Args:
        before: metrics of the current model, measured on the current data.
        known: all versions, oldest first. Those that a user rolled back from are ignored.
        tasks: digest of the current data of each task; values on other data cannot be compared.
    """
    best = {name: BestValue(value) for name, value in before.items()}
    rejected = {version.number for version in rolled_back(known)}
    for version in known[-config.refresh.best_of :]:
        if version.number in rejected:
            continue
        for name, value in version.metrics.items():
            is_comparable = version.tasks.get(name) == tasks.get(name, "")
            if is_comparable and not value <= best.get(name, BestValue(-math.inf)).value:
                best[name] = BestValue(value, version.number)
    return best


def regressions(best: Mapping[str, BestValue], after: Mapping[str, float], config: Config) -> list[str]:
    """Return one sentence for every metric that fell by more than its tolerance, is missing or is not finite.

    Args:
        best: reference values from `references`.
        after: metrics of the new model.
    """
    return [
        text
        for name, value_of_best in best.items()
        if (text := _regression(name, value_of_best, after, config))
    ]


def _regression(name: str, best: BestValue, after: Mapping[str, float], config: Config) -> str | None:
    if name not in after:
        return f"{name} was not measured"
    value, tolerance = after[name], config.refresh.tolerances.get(name, config.refresh.tolerance)
    if not math.isfinite(value):
        return f"{name} is {value}"
    if not best.value - value > tolerance:  # written so that a reference that is NaN never rejects a model
        return None
    of_version = f" of version {best.version}" if best.version else ""
    return (
        f"{name} fell by {best.value - value:.2f}, from {best.value:.2f}{of_version} to {value:.2f} "
        f"(tolerance {tolerance:g})"
    )


def rolled_back(known: Sequence[Version]) -> list[Version]:
    """Return the versions that a rollback undid and that no later version restored, oldest first.

    Args:
        known: all versions, oldest first.
    """
    rejected: dict[int, Version] = {}
    for before, version in pairwise(known):
        if version.restores is None:
            continue
        last = before.restores or before.number
        behind = (each for each in known if version.restores < each.number <= last)
        rejected |= {each.number: each for each in behind}
        rejected = {number: each for number, each in rejected.items() if not each.has_work(version.artifacts)}
    return list(rejected.values())
