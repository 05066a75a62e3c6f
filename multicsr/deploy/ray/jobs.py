"""Jobs on a Ray cluster that is already running, through its Jobs API."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from multicsr.deploy.ray.client import JobsApiClient
from multicsr.deploy.resources import JOB_LABEL
from multicsr.deploy.submit.job import (
    ATTEMPT,
    CONFIG,
    JOB_STATUS,
    RUN,
    Echo,
    JobStatus,
    Phase,
    attempt_number,
    last_error,
)
from multicsr.deploy.submit.retry import ApiError, pause_s, with_retries
from multicsr.errors import RunError

T = TypeVar("T")
_ABSENT = 404
_STOP_S = 60.0
"""Time in which a job must have ended after a request to stop it."""
_POLL_S = 0.5


def job_status(job: Any) -> JobStatus:  # noqa: ANN401 - ray is not typed
    """Return the state of a job from Ray's JobDetails."""
    marks = job.metadata or {}
    since = (
        datetime.fromtimestamp(job.start_time / 1000, UTC).isoformat("T", "seconds") if job.start_time else ""
    )
    return JobStatus(
        name=str(job.submission_id),
        phase=JOB_STATUS.get(str(job.status), Phase.WAITING),
        detail=_why(job),
        job=marks.get(JOB_LABEL, ""),
        run=marks.get(RUN, ""),
        attempt=attempt_number(str(marks.get(ATTEMPT, "1"))),
        digest=marks.get(CONFIG, ""),
        since=since,
    )


def _why(job: Any) -> str:  # noqa: ANN401
    """Return the error line of a multicsr job, if there is one; otherwise the message's first line."""
    message = str(job.message or "")
    return last_error(message) or next(iter(message.splitlines()), "").strip()


class RayClusterTarget:
    """The jobs of one Ray cluster: an implementation of `ClusterTarget`."""

    def __init__(self, client: JobsApiClient) -> None:
        self._client = client

    def jobs(self) -> list[JobStatus]:
        """Implement `ClusterTarget.jobs`. Jobs without a run name in their metadata are left out."""
        return [job for job in map(job_status, self._asked(self._client.jobs)) if job.run]

    def find(self, name: str) -> JobStatus | None:
        """Implement `ClusterTarget.find`."""
        try:
            return job_status(with_retries(lambda: self._client.job(name)))
        except ApiError as fault:
            if fault.status == _ABSENT:
                return None
            raise self.translated(fault) from fault

    def follow(self, name: str, echo: Echo) -> JobStatus:
        """Implement `ClusterTarget.follow`.

        If the log stream fails or ends before the job does, it is read again, and only new lines are printed.
        """
        log, broken = _Log(echo), 0
        while True:
            log.rewind()
            try:
                for piece in self._client.tail(name):
                    log.add(piece)
                    broken = 0
            except ApiError as fault:
                if fault.status in (401, 403):
                    raise self.translated(fault) from fault
            now = self._known(name)
            if now.phase.over:
                log.rewind()
                log.add(self._asked(lambda: self._client.log(name)))
                log.end()
                return now
            time.sleep(pause_s(broken))
            broken += 1

    def logs(self, name: str, echo: Echo) -> None:
        """Implement `ClusterTarget.logs`."""
        self._known(name)
        for line in self._asked(lambda: self._client.log(name)).splitlines():
            echo(line)

    def stop(self, name: str, echo: Echo) -> None:
        """Implement `ClusterTarget.stop`.

        Raises:
            RunError: there is no such job, multicsr did not submit it, or it has not ended after 60 s.
        """
        found = self._known(name)
        if not found.run:
            raise RunError(
                f"{name} is a job that multicsr did not submit; if it is yours: ray job stop {name} "
                f"--address {self._client.address}"
            )
        if found.phase.over:
            echo(f"{name} is over already")
            return
        self._asked(lambda: self._client.stop(name))
        end = time.monotonic() + _STOP_S
        while not (now := self._known(name)).phase.over:
            if time.monotonic() > end:
                raise RunError(f"{name} was asked to stop {_STOP_S:.0f} s ago and is still {now.phase}")
            time.sleep(_POLL_S)
        echo(f"{name}: {now.phase}; the store keeps what was committed")

    def nodes(self) -> list[Any]:
        """Return Ray's NodeState of all nodes that are alive."""
        return self._asked(self._client.nodes)

    def causes(self, name: str) -> list[str]:
        """Implement `ClusterTarget.causes`; the list is always empty."""
        return []  # the message of a waiting job holds the reason, and is its `detail`

    def findings(self, name: str) -> list[str]:
        """Implement `ClusterTarget.findings`; the list is empty, because the Jobs API is the only source."""
        return []

    def _known(self, name: str) -> JobStatus:
        found = self.find(name)
        if found is None:
            raise RunError(
                f"ray: {self._client.address} knows no job {name}; see `multicsr jobs`, or submit it again"
            )
        return found

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return with_retries(call)
        except ApiError as fault:
            raise self.translated(fault) from fault

    def translated(self, fault: ApiError) -> RunError:
        """Return a fault as an error for the user."""
        return RunError(f"ray: {self._client.address}: {fault.text}")


class _Log:
    """A printer of the new lines of a text that is read several times from its beginning.

    It counts characters: those that were printed or wait for the end of their line are skipped the next time.
    """

    def __init__(self, echo: Echo) -> None:
        self._echo = echo
        self._known = self._at = 0
        self._line = ""

    def rewind(self) -> None:
        """Expect the text from its beginning again."""
        self._at = 0

    def add(self, piece: str) -> None:
        """Take the next piece of the text and print the new lines that it completes."""
        new = piece[max(self._known - self._at, 0) :]
        self._at += len(piece)
        self._known = max(self._known, self._at)
        *lines, self._line = (self._line + new).split("\n")
        for line in lines:
            self._echo(line)

    def end(self) -> None:
        """Print the last line if it has no line break: no more text follows."""
        if self._line:
            self._echo(self._line)
