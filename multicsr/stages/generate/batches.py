"""Batches of triplets that run at the same time; finished rows are handed out in pieces, to be committed."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from queue import Empty, SimpleQueue

import pyarrow as pa

from multicsr.llm.base import Rejection
from multicsr.rows import Reason
from multicsr.stages.generate.triplet_rows import TripletInProgress, to_table

_COMMIT_S = 10.0
"""Seconds after which finished rows are yielded for a commit, even if they are few."""


@dataclass(frozen=True)
class WrittenRows:
    """Results of the LLM for some sentences."""

    rows: pa.Table
    """WRITTEN rows."""
    counters: dict[str, float]
    """Amounts of work by name: rows, tokens, seconds."""


class RunningBatches:
    """Batches of one call, in a pool of threads that other calls share."""

    def __init__(self, threads: ThreadPoolExecutor, rows_per_commit: int | None) -> None:
        """Start without batches.

        Args:
            threads: pool in which the batches run.
            rows_per_commit: number of finished rows that are yielded together; None: all at the end.
        """
        self._threads = threads
        self._rows_per_commit = rows_per_commit
        self._batches: dict[Future[dict[str, float]], Sequence[TripletInProgress]] = {}
        self._ended: SimpleQueue[Future[dict[str, float]]] = SimpleQueue()
        self._has_failed = False

    def submit(
        self,
        work: Callable[[Sequence[TripletInProgress]], dict[str, float]],
        batch: Sequence[TripletInProgress],
    ) -> None:
        """Queue one batch, unless another one has failed.

        Args:
            work: writes and scores the batch, and returns the amounts of work by name.
            batch: the triplets, which `work` fills in.
        """
        if self._has_failed:
            return
        future = self._threads.submit(work, batch)
        self._batches[future] = batch
        future.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel the batches that have not started."""
        for future in list(self._batches):
            future.cancel()

    def _end(self, future: Future[dict[str, float]]) -> None:
        """Record that a batch has ended, and cancel the others if it failed.

        It runs in the thread of the batch, so that no other batch starts after a failure.
        """
        if not future.cancelled() and future.exception() is not None:
            self._has_failed = True
            self.cancel()
        self._ended.put(future)

    def pieces(self) -> Iterator[WrittenRows]:
        """Yield rows of batches that have ended.

        After a failure, yield the finished rows only, and then raise the first error.
        """
        finished: list[TripletInProgress] = []
        counters: Counter[str] = Counter()
        failure: BaseException | None = None
        due_at = time.monotonic() + _COMMIT_S
        left = len(self._batches)
        while left:
            with suppress(Empty):
                future = self._ended.get(timeout=_COMMIT_S)
                left -= 1
                if future.cancelled():
                    continue
                if error := future.exception():
                    failure = failure or error
                    finished += _abandon(self._batches[future])
                else:
                    finished += self._batches[future]
                    counters.update(future.result())
            if self._is_due(len(finished), due_at) and left:
                yield _piece(finished, counters)
                finished, counters, due_at = [], Counter(), time.monotonic() + _COMMIT_S
        if finished:
            yield _piece(finished, counters)
        if failure is not None:
            raise failure

    def _is_due(self, num_finished: int, due_at: float) -> bool:
        """Return True if the finished rows must be yielded now."""
        if self._rows_per_commit is None or num_finished == 0:
            return False
        return num_finished >= self._rows_per_commit or time.monotonic() >= due_at


def _abandon(batch: Sequence[TripletInProgress]) -> list[TripletInProgress]:
    """Return the rows of a batch that are worth keeping after the engine failed within it.

    They are the rejected rows, and the rows with hypotheses, which become rejects of the reason ENGINE_ERROR.
    """
    for triplet in batch:
        if triplet.rejection is None and triplet.entailment.text is not None:
            triplet.rejection = Rejection(Reason.ENGINE_ERROR, "the engine failed before it was scored")
    return [triplet for triplet in batch if triplet.rejection is not None]


def _piece(triplets: Sequence[TripletInProgress], counters: Counter[str]) -> WrittenRows:
    """Return finished rows, sorted by id like the files of the LLM cache."""
    return WrittenRows(to_table(sorted(triplets, key=attrgetter("row_id"))), dict(counters))
