"""Progress of a training that runs in another process, from the log that it writes."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multicsr.progress import Progress

_POLL_S = 0.5


@contextmanager
def followed(log: Path, progress: Progress) -> Iterator[None]:
    """Tell `progress` of the steps that another process writes to `log`."""
    stop = threading.Event()

    def follow() -> None:
        told = 0
        while not stop.wait(_POLL_S):
            done = _last_step(log)
            progress.advance(max(0, done - told))
            told = max(told, done)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _last_step(log: Path) -> int:
    """Step of the last complete line; only the end of the file is read."""
    if not log.exists():
        return 0
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        *complete, _ = file.read().split(b"\n")
    return int(json.loads(complete[-1])["step"]) if complete else 0
