"""The name of a job says what it does: the same work has the same name, so it cannot run twice.

It is the name of a RayJob (a DNS-1035 label of at most 47 characters) and a submission id of the Jobs API.
"""

import re
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from multicsr.errors import ConfigError
from multicsr.kube.operator_rules import DNS_1035, NAME_LIMITS

LONGEST = NAME_LIMITS["RayJob"]
_ATTEMPT = len("-99")
_DAY = len("-20261231")
_DIGEST = 8


class Attempt(NamedTuple):
    """A run of a job: the first one, or another one after it failed or was stopped."""

    run: str
    number: int

    @property
    def name(self) -> str:
        return self.run if self.number == 1 else f"{self.run}-{self.number}"


def run_name(config_name: str, job: str, digest: str) -> str:
    """`<config.name>-<job>-<digits of the digest>`, the first part cut and spelt as a label must be."""
    room = LONGEST - _ATTEMPT - len(f"-{job}-") - _DIGEST
    return f"{_spelt(config_name, room)}-{job}-{digest[:_DIGEST]}"


def stem(config_name: str, job: str) -> str:
    """The part of a daily job's name before the date."""
    return f"{_spelt(config_name, LONGEST - _ATTEMPT - _DAY - len(job) - 1)}-{job}"


def daily_name(name: str, zone: str, now: datetime) -> str:
    """A name with the date that it is in a time zone: a second run on the same day has the same name.

    Raises:
        ConfigError: there is no such time zone.
    """
    try:
        today = now.astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"--daily {zone}: no such time zone; write UTC, or one like Europe/Berlin"
        ) from error
    return f"{name}-{today:%Y%m%d}"


def checked(name: str, *, daily: bool = False) -> str:
    """A name given by the user.

    Raises:
        ConfigError: Kubernetes would refuse it.
    """
    longest = LONGEST - _ATTEMPT - (_DAY if daily else 0)
    if not DNS_1035.fullmatch(name) or len(name) > longest:
        raise ConfigError(
            f"--name {name}: write at most {longest} lower-case letters, digits and hyphens, a letter first"
        )
    return name


def _spelt(name: str, room: int) -> str:
    """Of the characters that a label may have, at most so many."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())
    if not plain[:1].isalpha():
        plain = f"run-{plain.strip('-')}"
    return plain[:room].strip("-")
