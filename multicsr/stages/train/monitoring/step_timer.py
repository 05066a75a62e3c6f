"""The times of a training's steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class StepTimer:
    """A clock of the steps, which also sums the time spent waiting for data and for P."""

    def __init__(self) -> None:
        """Start the first step."""
        self._started = time.monotonic()
        self._waits = {"ingest": 0.0, "mask": 0.0}

    def waiting(self, what: str, items: Iterator[T]) -> Iterator[T]:
        """Yield the same items; the time until each item arrives counts as waiting for `what`."""
        while True:
            with self.waiting_for(what):
                item = next(items, None)
            if item is None:
                return
            yield item

    @contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """Count the time of the block as waiting for `what`, "ingest" or "mask"."""
        started = time.monotonic()
        yield
        self._waits[what] += time.monotonic() - started

    def read(self) -> dict[str, float]:
        """Return the times in seconds since the last call, as fields of `Step`, and reset them."""
        now = time.monotonic()
        times = {f"{what}_wait_s": seconds for what, seconds in self._waits.items()}
        times["seconds"] = now - self._started
        self._started, self._waits = now, dict.fromkeys(self._waits, 0.0)
        return times
