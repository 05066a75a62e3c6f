"""The progress of a training in other processes, read from its log."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from multicsr.artifacts import CandidateScore
from multicsr.errors import MulticsrError
from multicsr.observability.progress import Progress
from multicsr.periodic import run_periodically
from multicsr.storage.store import Store

_POLL_S = 0.5
"""Seconds between two reads of a log in a directory."""
_FETCH_EVERY_S = 2.0
"""Seconds between two downloads of a log in a bucket."""
_NOTE = {"loss": ".3f", "dev": ".2f"}
"""Fields of the log that are shown, with their format."""


@contextmanager
def followed_in(store: Store, name: str, progress: Progress) -> Iterator[None]:
    """Run `followed` for a log in a store; from a bucket, the log is downloaded periodically.

    Args:
        store: the store.
        name: name of the log in the store.
        progress: receives the steps.
    """
    if store.directory is not None:
        with followed(store.directory / name, progress):
            yield
        return
    with tempfile.TemporaryDirectory(prefix="multicsr-") as folder:
        log, part = Path(folder, "log"), Path(folder, "part")

        def fetch() -> None:
            """Download the log."""
            store.download_file(name, part)
            part.replace(log)

        with followed(log, progress, fetch, _FETCH_EVERY_S):
            yield


@contextmanager
def followed(
    log: Path, progress: Progress, fetch: Callable[[], None] = lambda: None, every_s: float | None = None
) -> Iterator[None]:
    """Report the steps that another process writes to a log, with the latest loss and score.

    Args:
        log: the log.
        progress: receives the steps.
        fetch: function that is called before every read, to update the log.
        every_s: seconds between two reads; None: `_POLL_S`.
    """
    follower = _Follower(log, progress)

    def look() -> None:
        """Update the log and report the new steps."""
        # The log may not exist yet, or the server may be down: neither stops the run.
        with suppress(MulticsrError):
            fetch()
        follower.look()

    try:
        with run_periodically(look, every_s or _POLL_S):
            yield
    finally:
        look()
        follower.close()


class _Follower:
    """A reader of the lines that were appended to the log since the last read.

    A training that resumes replaces the log by a shorter one; steps that are done again are reported only
    once.
    """

    def __init__(self, log: Path, progress: Progress) -> None:
        """Set up the reader; the log need not exist yet."""
        self._log, self._progress = log, progress
        self._file: BinaryIO | None = None
        self._incomplete = b""
        self._latest: dict[str, float] = {}
        self._reported, self._reported_note = 0, ""

    def look(self) -> None:
        """Report the new steps and candidates to the progress; nothing if there are none."""
        self._reopen_if_replaced()
        if self._file is None:
            return
        *lines, self._incomplete = (self._incomplete + self._file.read()).split(b"\n")
        for line in lines:
            # A damaged line is skipped here; the code that resumes or reports from the log raises an error.
            with suppress(ValueError, TypeError):
                self._take(json.loads(line))
        done, note = max(self._reported, int(self._latest.get("step", 0))), self._note()
        if (done, note) != (self._reported, self._reported_note):
            self._progress.advance(done - self._reported, note)
        self._reported, self._reported_note = done, note

    def close(self) -> None:
        """Close the log."""
        if self._file is not None:
            self._file.close()

    def _take(self, record: dict[str, float]) -> None:
        """Take the figures of a line, or announce the candidate that it is: no step is done for it."""
        if "candidate" in record:
            self._progress.announce(str(CandidateScore.model_validate(record)))
        else:
            self._latest |= record

    def _note(self) -> str:
        """Return the latest loss and score as a short text."""
        return ", ".join(
            f"{key} {self._latest[key]:{form}}" for key, form in _NOTE.items() if key in self._latest
        )

    def _reopen_if_replaced(self) -> None:
        """Open the log if it is not open yet or was replaced by another file."""
        try:
            # The inode of an open file is not used again, so a different inode means a different file.
            if self._file is not None and os.path.samestat(self._log.stat(), os.fstat(self._file.fileno())):
                return
            file = self._log.open("rb")
        except FileNotFoundError:
            return
        self.close()
        self._file, self._incomplete, self._latest = file, b"", {}
