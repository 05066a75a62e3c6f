"""Jobs on a Ray cluster that runs already, through its Jobs API."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from multicsr.errors import RunError
from multicsr.resources import JOB_LABEL
from multicsr.submit.jobs import ATTEMPT, CONFIG, JOB_STATUS, RUN, Phase, Say, Seen
from multicsr.submit.ray_door import Door
from multicsr.submit.retry import Fault, patiently, pause_s

T = TypeVar("T")
_ABSENT = 404
_STOP_S = 60.0
_POLL_S = 0.5
_ERROR = "error: "
"""How a line begins with which a job of ours ends badly."""


def seen(job: Any) -> Seen:  # noqa: ANN401 - ray is not typed
    """What the Jobs API tells of a job."""
    marks = job.metadata or {}
    since = (
        datetime.fromtimestamp(job.start_time / 1000, UTC).isoformat("T", "seconds") if job.start_time else ""
    )
    return Seen(
        name=str(job.submission_id),
        phase=JOB_STATUS.get(str(job.status), Phase.WAITING),
        detail=_why(job),
        job=marks.get(JOB_LABEL, ""),
        run=marks.get(RUN, ""),
        attempt=int(marks.get(ATTEMPT, "1")),
        digest=marks.get(CONFIG, ""),
        since=since,
    )


def _why(job: Any) -> str:  # noqa: ANN401
    """The line with which our job ended badly, if Ray's message has it; else the message's first line."""
    lines = str(job.message or "").splitlines() or [""]
    own = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    return own[-1] if own else lines[0].strip()


class RayCluster:
    """The jobs of one Ray cluster."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def jobs(self) -> list[Seen]:
        return [job for job in map(seen, self._asked(self._door.jobs)) if job.run]

    def find(self, name: str) -> Seen | None:
        try:
            return seen(patiently(lambda: self._door.job(name)))
        except Fault as fault:
            if fault.status == _ABSENT:
                return None
            raise self.told(fault) from fault

    def follow(self, name: str, say: Say) -> Seen:
        """A log that breaks, or just ends, is taken up where it was while the job is not over."""
        log, broken = _Log(say), 0
        while True:
            log.rewind()
            try:
                for piece in self._door.tail(name):
                    log.add(piece)
                    broken = 0
            except Fault as fault:
                if fault.status in (401, 403):
                    raise self.told(fault) from fault
            now = self._known(name)
            if now.phase.over:
                log.rewind()
                log.add(self._asked(lambda: self._door.log(name)))
                log.end()
                return now
            time.sleep(pause_s(broken))
            broken += 1

    def logs(self, name: str, say: Say) -> None:
        self._known(name)
        for line in self._asked(lambda: self._door.log(name)).splitlines():
            say(line)

    def stop(self, name: str, say: Say) -> None:
        if self._known(name).phase.over:
            say(f"{name} is over already")
            return
        self._asked(lambda: self._door.stop(name))
        end = time.monotonic() + _STOP_S
        while not (now := self._known(name)).phase.over:
            if time.monotonic() > end:
                raise RunError(f"{name} was told to stop {_STOP_S:.0f} s ago and is still {now.phase}")
            time.sleep(_POLL_S)
        say(f"{name}: {now.phase}; the store keeps what was committed")

    def nodes(self) -> list[Any]:
        """ray's NodeState of all nodes that are up."""
        return self._asked(self._door.nodes)

    def findings(self, name: str) -> list[str]:
        return []

    def _known(self, name: str) -> Seen:
        found = self.find(name)
        if found is None:
            raise RunError(
                f"ray: {self._door.address} knows no job {name}; see `multicsr jobs`, or submit it again"
            )
        return found

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return patiently(call)
        except Fault as fault:
            raise self.told(fault) from fault

    def told(self, fault: Fault) -> RunError:
        """For the user."""
        return RunError(f"ray: {self._door.address}: {fault.text}")


class _Log:
    """Of a text that is told from its beginning again and again, the lines that are new."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._known = self._at = 0
        self._line = ""

    def rewind(self) -> None:
        """The text begins again."""
        self._at = 0

    def add(self, piece: str) -> None:
        """The next piece of the text."""
        new = piece[max(self._known - self._at, 0) :]
        self._at += len(piece)
        self._known = max(self._known, self._at)
        *lines, self._line = (self._line + new).split("\n")
        for line in lines:
            self._say(line)

    def end(self) -> None:
        """There is no more."""
        if self._line:
            self._say(self._line)
