"""Batches as a pure function of (seed, epoch): no duplicate sentence in a batch, nothing to checkpoint.

A sentence twice in a batch is a false negative by construction. The rows of an epoch are shuffled and fill
one batch after another; a row whose sentence is in the batch already waits until that batch is full. When
no batch can be filled any more, the rows that are left sit out this epoch; the next one shuffles anew.
"""

from collections import defaultdict, deque

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import ConfigError
from multicsr.train.index import Ids


def epoch_batches(key_RS: Ids, global_batch: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The batches of one epoch.

    Args:
        key_RS: sentence numbers of R rows, S sentences each; equal numbers never share a batch.
        global_batch: N rows in a batch over all workers; worker k of K takes slice k*N/K to (k+1)*N/K.
        seed: of the run.
        epoch: from 0.

    Returns:
        Row numbers [batches, N].

    Raises:
        ConfigError: not even one batch can be filled.
    """
    order_R = np.random.default_rng([seed, epoch]).permutation(len(key_RS))
    queue = _Queue(order_R.tolist(), key_RS.tolist())
    batches: list[list[int]] = []
    while len(batch := queue.next_batch(global_batch)) == global_batch:
        batches.append(batch)
    if not batches:
        raise ConfigError(
            f"train.global_batch: {global_batch} rows without a common sentence cannot be found among "
            f"{len(key_RS):,} triplets; lower it, or curate less strictly"
        )
    return np.asarray(batches, dtype=np.int64)


class _Queue:
    """Rows in order of their turn.

    A row waits under one sentence that keeps it out of the batch. A sentence that was in a full batch calls
    the first of those who wait for it, one being all that the next batch can take. So no row is looked at
    again in vain, however common its sentence.
    """

    def __init__(self, order: list[int], keys: list[list[int]]) -> None:
        self._fresh = iter(order)
        self._keys = keys
        self._called: deque[tuple[int, int]] = deque()  # (row, sentence that it waited for)
        self._waiting: defaultdict[int, deque[int]] = defaultdict(deque)

    def next_batch(self, size: int) -> list[int]:
        """The next rows; fewer than `size` when no more can be had."""
        batch: list[int] = []
        held: set[int] = set()
        while len(batch) < size:
            row, waited_for = self._called.popleft() if self._called else (next(self._fresh, None), None)
            if row is None:
                break
            blocking = next((key for key in self._keys[row] if key in held), None)
            if blocking is None:
                batch.append(row)
                held.update(self._keys[row])
                continue
            self._waiting[blocking].append(row)
            if waited_for is not None and waited_for not in held:
                self._call(waited_for)  # in place of this row
        for row in batch:
            for key in self._keys[row]:
                self._call(key)
        return batch

    def _call(self, key: int) -> None:
        if waiting := self._waiting.get(key):
            self._called.append((waiting.popleft(), key))
