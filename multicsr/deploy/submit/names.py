"""Names of jobs, derived from their work: the same work has the same name, so it cannot run twice.

A name is used as the name of a RayJob (a DNS-1035 label of at most 47 characters) and as the submission id of
the Jobs API.
"""

import re
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from multicsr.deploy.manifest_checks.operator_rules import DNS_1035, NAME_LIMITS
from multicsr.errors import ConfigError

LONGEST = NAME_LIMITS["RayJob"]
_ATTEMPT = len("-99")
_DAY = len("-20261231")
_DIGEST = 8


class Attempt(NamedTuple):
    """An attempt to run a job: the first one, or a later one after the attempt before it has ended."""

    run: str
    number: int

    @property
    def name(self) -> str:
        """Return the name of the attempt: that of the run, with `-2`, `-3`, ... from the second one on."""
        return self.run if self.number == 1 else f"{self.run}-{self.number}"


def run_name(config_name: str, job: str, digest: str) -> str:
    """Return the name `<config.name>-<job>-<first 8 digits of the digest>`.

    The first part is shortened, and changed to the characters that a label may have.
    """
    max_length = LONGEST - _ATTEMPT - len(f"-{job}-") - _DIGEST
    return f"{_spelt(config_name, max_length)}-{job}-{digest[:_DIGEST]}"


def stem(config_name: str, job: str) -> str:
    """Return the part of a daily job's name that precedes the date."""
    return f"{_spelt(config_name, LONGEST - _ATTEMPT - _DAY - len(job) - 1)}-{job}"


def daily_name(name: str, zone: str, now: datetime) -> str:
    """Return a name with the current date in a time zone appended.

    A second run on the same day has the same name.

    Args:
        name: the part before the date.
        zone: name of the time zone, such as `UTC` or `Europe/Berlin`.
        now: current time.

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
    """Return a name given by the user if it is valid.

    Args:
        daily: the name will be followed by a date, so it must be shorter.

    Raises:
        ConfigError: Kubernetes would not accept the name.
    """
    longest = LONGEST - _ATTEMPT - (_DAY if daily else 0)
    if not DNS_1035.fullmatch(name) or len(name) > longest:
        raise ConfigError(
            f"--name {name}: write at most {longest} lower-case letters, digits and hyphens, a letter first"
        )
    return name


def _spelt(name: str, max_length: int) -> str:
    """Return a name changed to the characters that a label may have, at most `max_length` of them."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())
    if not plain[:1].isalpha():
        plain = f"run-{plain.strip('-')}"
    return plain[:max_length].strip("-")
