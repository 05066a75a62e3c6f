"""Progress of a training that runs in other processes, from the log that it writes."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from multicsr.errors import MulticsrError
from multicsr.progress import Progress
from multicsr.repeat import repeated
from multicsr.store import Store

_POLL_S = 0.5
_FETCH_EVERY_S = 2.0
_NOTE = {"loss": ".3f", "dev": ".2f"}


@contextmanager
def followed_in(store: Store, name: str, progress: Progress) -> Iterator[None]:
    """`followed` for a log in a store; out of a bucket it is copied again and again."""
    if store.directory is not None:
        with followed(store.directory / name, progress):
            yield
        return
    with tempfile.TemporaryDirectory(prefix="multicsr-") as folder:
        log, part = Path(folder, "log"), Path(folder, "part")

        def fetch() -> None:
            store.download_file(name, part)
            part.replace(log)

        with followed(log, progress, fetch, _FETCH_EVERY_S):
            yield


@contextmanager
def followed(
    log: Path, progress: Progress, fetch: Callable[[], None] = lambda: None, every_s: float | None = None
) -> Iterator[None]:
    """Tell `progress` of the steps that another process writes to `log`, and of the latest loss and score.

    Args:
        fetch: called before every look, to bring the log up to date.
        every_s: between two looks.
    """
    follower = _Follower(log, progress)

    def look() -> None:
        with suppress(MulticsrError):  # not there yet, or the server is away: no reason to stop
            fetch()
        follower.look()

    try:
        with repeated(look, every_s or _POLL_S):
            yield
    finally:
        look()
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
