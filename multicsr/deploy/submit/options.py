"""Options of the command line that select the target."""

from collections.abc import Mapping
from enum import StrEnum

from multicsr.errors import ConfigError


class To(StrEnum):
    """Targets on which jobs run."""

    K8S = "k8s"
    RAY = "ray"
    LOCAL = "local"


_WITHOUT_EFFECT = {
    To.K8S: ("address",),
    To.RAY: ("overlay", "context"),
    To.LOCAL: ("overlay", "address", "context", "name", "daily", "time-zone", "dry-run", "again"),
}
"""Options of `submit` that have no effect, by target."""


def require_effect(to: To, given: Mapping[str, object]) -> None:
    """Raise if an option would have no effect for this target.

    Args:
        given: values of the options by name; an empty value means that the option is not given.

    Raises:
        ConfigError: an option would have no effect.
    """
    for option in _WITHOUT_EFFECT[to]:
        if given[option]:
            raise ConfigError(f"--{option} has no effect with --to {to}; leave it out")
    if given["again"] and given["dry-run"]:
        raise ConfigError("--again has no effect with --dry-run, which asks no cluster what has succeeded")
    if given["time-zone"] and not given["daily"]:
        raise ConfigError("--time-zone has no effect without --daily")
