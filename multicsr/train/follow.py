"""Progress of a training that runs in another process, from the log that it writes."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from multicsr.progress import Progress

_POLL_S = 0.5
_NOTE = {"loss": ".3f", "dev": ".2f"}


@contextmanager
def followed(log: Path, progress: Progress) -> Iterator[None]:
    """Tell `progress` of the steps that another process writes to `log`, and of the latest loss and score."""
    stop = threading.Event()
    follower = _Follower(log, progress)

    def follow() -> None:
        while not stop.wait(_POLL_S):
            follower.look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        follower.look()
        follower.close()


class _Follower:
    """Reads what was appended to the log since the last look.

    A training that resumes replaces the log by a shorter one; steps that are done again are told once.
    """

    def __init__(self, log: Path, progress: Progress) -> None:
        self._log, self._progress = log, progress
        self._file: BinaryIO | None = None
        self._incomplete = b""
        self._latest: dict[str, float] = {}
        self._told = 0

    def look(self) -> None:
        """Tell the progress what is new."""
        self._reopen_if_replaced()
        if self._file is None:
            return
        *lines, self._incomplete = (self._incomplete + self._file.read()).split(b"\n")
        for line in lines:
            self._latest |= json.loads(line)
        done = max(self._told, int(self._latest.get("step", 0)))
        self._progress.advance(done - self._told, self._note())
        self._told = done

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _note(self) -> str:
        return ", ".join(
            f"{key} {self._latest[key]:{form}}" for key, form in _NOTE.items() if key in self._latest
        )

    def _reopen_if_replaced(self) -> None:
        try:
            # An open file keeps its inode, so that another inode means another file.
            if self._file is not None and os.path.samestat(self._log.stat(), os.fstat(self._file.fileno())):
                return
            file = self._log.open("rb")
        except FileNotFoundError:
            return
        self.close()
        self._file, self._incomplete, self._latest = file, b"", {}
