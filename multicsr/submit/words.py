"""Words of the command line."""

from collections.abc import Mapping
from enum import StrEnum

from multicsr.errors import ConfigError


class To(StrEnum):
    """Where jobs run."""

    K8S = "k8s"
    RAY = "ray"
    LOCAL = "local"


_WITHOUT_EFFECT = {
    To.K8S: ("address",),
    To.RAY: ("overlay", "context"),
    To.LOCAL: ("overlay", "address", "context", "name", "daily", "time-zone", "dry-run"),
}
"""Options of `submit`."""


def require_effect(to: To, given: Mapping[str, object]) -> None:
    """Nothing is said in vain.

    Args:
        given: options by name; an empty value: it is not given.

    Raises:
        ConfigError: an option would do nothing.
    """
    for option in _WITHOUT_EFFECT[to]:
        if given[option]:
            raise ConfigError(f"--{option} has no effect with --to {to}; leave it out")
    if given["time-zone"] and not given["daily"]:
        raise ConfigError("--time-zone has no effect without --daily")
