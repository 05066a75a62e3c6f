"""The state of a job as a cluster reports it, and the protocol of a cluster."""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

Echo = Callable[[str], None]
"""Callback that takes one line of output for the user."""

RUN = "multicsr.io/run"
ATTEMPT = "multicsr.io/attempt"
CONFIG = "multicsr.io/config"
"""Keys of the run name, the attempt number and the digest of the bundle.

They are labels and annotations of a RayJob, and metadata of a job of the Jobs API.
"""


class Phase(StrEnum):
    """Phases of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def over(self) -> bool:
        """Return whether the job has ended, successfully or not."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED)


JOB_STATUS = {
    "PENDING": Phase.WAITING,
    "RUNNING": Phase.RUNNING,
    "STOPPED": Phase.STOPPED,
    "SUCCEEDED": Phase.SUCCEEDED,
    "FAILED": Phase.FAILED,
}
"""Phase of each job status of the Jobs API."""


class JobStatus(NamedTuple):
    """The current state of a job, as the cluster reports it."""

    name: str
    phase: Phase
    detail: str = ""
    """The cluster's description of the state, in one line."""
    cause: str = ""
    """Reason for the state; the error line of the job itself if there is one."""
    job: str = ""
    """Kind of the job; empty if it has no such label."""
    run: str = ""
    """Name without the number of the attempt; empty if multicsr did not submit the job."""
    attempt: int = 1
    digest: str = ""
    """Digest of the bundle; empty if multicsr did not submit the job."""
    deleting: bool = False
    """True while the job is being deleted."""
    since: str = ""
    """Time in ISO 8601: creation of a RayJob, start of a job of the Jobs API; empty if not known."""

    def __str__(self) -> str:
        why = "; ".join(part for part in (self.detail, self.cause) if part)
        return f"{self.name}: {self.phase}" + (f" ({why})" if why else "")


class ClusterTarget(Protocol):
    """A cluster on which jobs run.

    Raises:
        RunError: from every method, with the problem and the remedy in one line.
    """

    def jobs(self) -> list[JobStatus]:
        """Return all jobs of this project, in no particular order."""

    def find(self, name: str) -> JobStatus | None:
        """Return the job of this name, or None if there is none."""

    def follow(self, name: str, echo: Echo) -> JobStatus:
        """Pass log lines and changes of state to `echo` until the job has ended; return its last state."""

    def logs(self, name: str, echo: Echo) -> None:
        """Pass the log lines that exist now to `echo`."""

    def stop(self, name: str, echo: Echo) -> None:
        """Stop the job and return when it has ended. What it has written to the store stays."""

    def causes(self, name: str) -> list[str]:
        """Return the reasons why the job waits, one line each."""

    def findings(self, name: str) -> list[str]:
        """Return the contradictions between the sources of the job's state, one line each."""


def attempt_number(text: str) -> int:
    """Return the attempt number in an annotation; 1 if it is no number of at most nine digits.

    Other programs may have written the annotation, so its text is not trusted.
    """
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 1


def unknown(name: str) -> str:
    """Return the error message for a job name that does not exist."""
    return f"no job {name}; see `multicsr jobs`"


_ERROR = "error: "
"""Beginning of the log line with which a failed job of multicsr reports its error."""


def last_error(message: str) -> str:
    """Return the last error of a multicsr job from a message that quotes its log; empty if there is none."""
    lines = [line.strip() for line in message.splitlines()]
    return next((line.removeprefix(_ERROR) for line in reversed(lines) if line.startswith(_ERROR)), "")
