"""A job as a cluster tells of it, and what a cluster must be able to do."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

Say = Callable[[str], None]
"""Takes a line for the user."""

RUN = "multicsr.io/run"
ATTEMPT = "multicsr.io/attempt"
CONFIG = "multicsr.io/config"
"""Labels and annotations of a RayJob, and metadata of a job of the Jobs API."""


class Phase(StrEnum):
    """Where a job is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def over(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED)


JOB_STATUS = {
    "PENDING": Phase.WAITING,
    "RUNNING": Phase.RUNNING,
    "STOPPED": Phase.STOPPED,
    "SUCCEEDED": Phase.SUCCEEDED,
    "FAILED": Phase.FAILED,
}
"""The Jobs API's words."""


class Seen(NamedTuple):
    """A job, as the cluster tells of it now."""

    name: str
    phase: Phase
    detail: str = ""
    """Why it is where it is, in one line."""
    job: str = ""
    run: str = ""
    attempt: int = 1
    digest: str = ""
    """Of its configuration; empty: it was not made by us."""
    going: bool = False
    """It is being deleted."""
    since: str = ""
    """When it was made, ISO 8601."""

    def __str__(self) -> str:
        return f"{self.name}: {self.phase}" + (f" ({self.detail})" if self.detail else "")


class Cluster(Protocol):
    """Where jobs run. Methods raise RunError, in one line with the remedy."""

    def jobs(self) -> list[Seen]:
        """Every job of this project, in no order."""

    def find(self, name: str) -> Seen | None:
        """A job by its name."""

    def follow(self, name: str, say: Say) -> Seen:
        """Tell its log lines and changes of state until it is over; the last state."""

    def logs(self, name: str, say: Say) -> None:
        """Tell the log lines there are."""

    def stop(self, name: str, say: Say) -> None:
        """End it; returns when it has ended. What it has put into the store stays."""

    def findings(self, name: str) -> list[str]:
        """What the sources of its state do not agree on, a line each."""
