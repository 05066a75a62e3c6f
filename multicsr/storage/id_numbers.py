"""Row ids as numbers: two 64-bit words, which NumPy compares and sorts faster than texts of 32 digits."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DIGITS = 32
Words = NDArray[np.uint64]


def id_words(row_ids: pa.ChunkedArray) -> Words:
    """Return row ids [N, 2] as their high and their low 64 bits.

    Raises:
        ValueError: an id is null, which has no digits, so that a row would be lost.
    """
    if row_ids.null_count:
        raise ValueError(f"{row_ids.null_count:,} of {len(row_ids):,} row ids are null")
    digits = b"".join(_digits(chunk) for chunk in row_ids.chunks)
    return words_of(bytes.fromhex(digits.decode("ascii")))


def words_of(ids: bytes) -> Words:
    """Return ids of 16 bytes each [N, 2] as their high and their low 64 bits."""
    return np.frombuffer(ids, ">u8").astype(np.uint64).reshape(-1, 2)


def hex_ids(words_N2: Words) -> pa.StringArray:
    """Return ids as the texts that `id_words` reads."""
    digits = words_N2.astype(">u8").tobytes().hex().encode()
    offsets_N = np.arange(len(words_N2) + 1, dtype=np.int32) * _DIGITS
    return pa.StringArray.from_buffers(len(words_N2), pa.py_buffer(offsets_N), pa.py_buffer(digits))


def order_by_id(words_N2: Words, *then_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order [N] of rows by id, and of rows with equal ids by further numbers."""
    high_N, low_N = words_N2.T
    order_N = np.argsort(high_N, kind="stable")
    is_next_equal_N = high_N[order_N][1:] == high_N[order_N][:-1]
    in_tie_N = np.append(is_next_equal_N, False) | np.append(False, is_next_equal_N)
    # Few rows share 64 bits with another one: the others are in order already.
    tied_M = order_N[in_tie_N[: len(order_N)]]
    keys = (*reversed(then_N), low_N, high_N)
    order_N[in_tie_N[: len(order_N)]] = tied_M[np.lexsort([key_N[tied_M] for key_N in keys])]
    return order_N


def find_ids(wanted_N2: Words, among_M2: Words) -> NDArray[np.int64]:
    """Return the first place [N] of each wanted id among others; -1 for an id that is not among them."""
    if len(among_M2) == 0:
        return np.full(len(wanted_N2), -1)
    order_M = order_by_id(among_M2)
    high_M, low_M = among_M2[order_M].T
    high_N, low_N = wanted_N2.T
    place_N = np.searchsorted(high_M, high_N)
    # Different ids with the same high word: step on to the one with the right low word.
    while True:
        at_N = np.minimum(place_N, len(order_M) - 1)
        is_before_N = (place_N < len(order_M)) & (high_M[at_N] == high_N) & (low_M[at_N] < low_N)
        if not is_before_N.any():
            break
        place_N[is_before_N] += 1
    is_found_N = (place_N < len(order_M)) & (high_M[at_N] == high_N) & (low_M[at_N] == low_N)
    return np.where(is_found_N, order_M[at_N], -1)


def _digits(ids: pa.StringArray) -> bytes:
    """Return the hex digits of all ids of a chunk."""
    _, offsets, digits = ids.buffers()
    if len(ids) == 0 or digits is None:
        return b""
    ends = np.frombuffer(offsets, np.int32)[[ids.offset, ids.offset + len(ids)]]
    return bytes(memoryview(digits)[ends[0] : ends[1]])
