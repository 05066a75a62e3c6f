"""Batches as a pure function of (seed, epoch): no duplicate sentence in a batch, nothing to checkpoint.

A sentence twice in a batch is a false negative by construction. The rows of an epoch are shuffled, and each
goes into the first batch that has room and none of its sentences. Batches that stay incomplete are dropped:
their rows sit out this epoch, and the next one shuffles anew.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import ConfigError
from multicsr.train.triplets import Ids


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
    batches: list[list[int]] = []
    first_free: defaultdict[int, int] = defaultdict(int)  # sentence -> first batch after all that hold it
    first_open = 0
    for row, keys in zip(order_R.tolist(), key_RS[order_R].tolist(), strict=True):
        place = max(first_open, *(first_free[key] for key in keys))
        while place < len(batches) and len(batches[place]) == global_batch:
            place += 1
        while place >= len(batches):
            batches.append([])
        batches[place].append(row)
        for key in keys:
            first_free[key] = place + 1
        while first_open < len(batches) and len(batches[first_open]) == global_batch:
            first_open += 1
    full = [batch for batch in batches if len(batch) == global_batch]
    if not full:
        raise ConfigError(
            f"train.global_batch: {global_batch} rows without a common sentence cannot be found among "
            f"{len(key_RS):,} triplets; lower it, or curate less strictly"
        )
    return np.asarray(full, dtype=np.int64)
