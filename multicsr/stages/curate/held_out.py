"""The choice of the premises that are held out of training, for an evaluation without labels.

A row is held out by a hash of its id alone. So it is on the same side in every refresh and in every shard,
with every seed and number of workers, and a larger share holds out the rows of a smaller one, too.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from multicsr.hashing import hash_64

_HASHES = 2**64
"""Number of values of a hash."""


def is_held_out(row_ids: Iterable[str], share: float) -> NDArray[np.bool_]:
    """Return for each row whether it is held out of training.

    Args:
        row_ids: the ids of R rows.
        share: share of all premises that is held out, from 0 to 0.5 (`evaluate.held_out`).
    """
    hash_R = np.fromiter((hash_64(row_id) for row_id in row_ids), np.uint64)
    return hash_R < np.uint64(int(share * _HASHES))
