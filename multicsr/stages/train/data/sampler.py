"""Batches as a pure function of (seed, epoch): no duplicate sentence in a batch, no state to checkpoint.

A sentence that occurs twice in a batch is a false negative by construction. The rows of an epoch are shuffled
and fill one batch after another. A row with a sentence that is already in the batch waits until that batch is
full. When no further batch can be filled, the remaining rows are left out of this epoch; the next epoch
shuffles all rows again.
"""

from collections import defaultdict, deque

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import ConfigError
from multicsr.stages.train.data.index import Ids


def epoch_batches(key_RS: Ids, global_batch: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the batches of one epoch.

    Args:
        key_RS: sentence numbers of R rows, S sentences each; equal numbers never share a batch.
        global_batch: N rows in a batch over all workers; worker k of K takes slice k*N/K to (k+1)*N/K.
        seed: the seed of the run.
        epoch: number of the epoch, counted from 0.

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
    """A queue of the rows of one epoch.

    A row that cannot enter the batch waits in the list of one sentence that blocks it. When a batch is full,
    each of its sentences releases the first row in its list, because the next batch can take only one row
    with that sentence. So the cost stays low even for a very common sentence: rows behind the first are not
    examined again.
    """

    def __init__(self, order: list[int], keys: list[list[int]]) -> None:
        """Set up the queue.

        Args:
            order: row numbers in shuffled order.
            keys: the sentence numbers of each row.
        """
        self._fresh = iter(order)
        self._keys = keys
        self._called: deque[tuple[int, int]] = deque()  # released rows: (row, sentence that blocked it)
        self._waiting: defaultdict[int, deque[int]] = defaultdict(deque)

    def next_batch(self, size: int) -> list[int]:
        """Return the next rows; fewer than `size` if no more rows fit into this batch."""
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
                self._call(waited_for)  # Another sentence blocks this row: release the next one in its place.
        for row in batch:
            for key in self._keys[row]:
                self._call(key)
        return batch

    def _call(self, key: int) -> None:
        """Release the first row that waits for a sentence, if there is one."""
        if waiting := self._waiting.get(key):
            self._called.append((waiting.popleft(), key))
