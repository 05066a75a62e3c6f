"""Work that waits for an engine, and the threads that run it in batches.

An engine that batches continuously gets one piece of work from each thread. Any other engine is called by
one thread, with all waiting work of one kind; a piece of another kind waits for the next batch. The oldest
piece decides which kind is next, so that none waits for ever.
"""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_GATHER_S = 0.004
"""Seconds for which a batch waits for further work: requests that were sent together arrive together."""


@dataclass(eq=False)
class _Waiting:
    """Piece of work that waits."""

    kind: Hashable
    item: Any
    run: Callable[[Sequence[Any]], Sequence[Any]]
    result: Future[Any] = field(default_factory=Future)


class Scheduler:
    """Queue of work, and the threads that take it."""

    def __init__(self, *, threads: int, size: int) -> None:
        """Start the threads.

        Args:
            threads: number of batches that run at the same time.
            size: maximum number of pieces in a batch.
        """
        self._size = size
        self._queue: list[_Waiting] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batch {i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, kind: Hashable, item: T, run: Callable[[Sequence[T]], Sequence[R]]) -> "Future[R]":
        """Queue a piece of work.

        Args:
            kind: pieces of equal kind may run in one batch.
            item: the piece.
            run: computes the results of the items of a batch, in order.
        """
        waiting = _Waiting(kind, item, run)
        with self._changed:
            self._queue.append(waiting)
            self._changed.notify()
        return waiting.result

    def close(self) -> None:
        """Cancel what waits, and wait for the batches that run."""
        with self._changed:
            self._is_closed = True
            for waiting in self._queue:
                waiting.result.cancel()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        """Run batches until the scheduler is closed."""
        while batch := self._next():
            try:
                results = batch[0].run([waiting.item for waiting in batch])
            except Exception as error:  # noqa: BLE001 - whoever waits for the result gets it
                for waiting in batch:
                    waiting.result.set_exception(error)
            else:
                for waiting, result in zip(batch, results, strict=True):
                    waiting.result.set_result(result)

    def _next(self) -> list[_Waiting]:
        """Wait for work and take a batch of it; an empty one if the scheduler is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closed)
        if self._size > 1:
            time.sleep(_GATHER_S)
        with self._changed:
            while not self._is_closed:
                self._changed.wait_for(lambda: self._queue or self._is_closed)
                batch = [waiting for waiting in self._take() if waiting.result.set_running_or_notify_cancel()]
                if batch:
                    return batch
        return []

    def _take(self) -> list[_Waiting]:
        """Remove the oldest piece and others of its kind from the queue."""
        batch = [waiting for waiting in self._queue if waiting.kind == self._queue[0].kind][: self._size]
        taken = set(map(id, batch))
        self._queue = [waiting for waiting in self._queue if id(waiting) not in taken]
        return batch
