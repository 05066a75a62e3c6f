"""Cosines of sentence columns under an encoder, a block of rows at a time."""

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from multicsr.errors import RunError

Encode = Callable[[list[str]], np.ndarray]
"""Sentences [S] to vectors [S, D] of any length."""

_BLOCK = 4096


def cosines(columns: Sequence[list[str]], encode: Encode) -> np.ndarray:
    """Cosine of the first column's sentences with those of every other column.

    Args:
        columns: C lists of N sentences.
        encode: is given each distinct sentence of a block once.

    Returns:
        float64 [N, C - 1]; 0 where a vector is zero.

    Raises:
        RunError: the encoder gives vectors that are not finite.
    """
    blocks = [
        _block([column[start : start + _BLOCK] for column in columns], encode)
        for start in range(0, len(columns[0]), _BLOCK)
    ]
    return np.concatenate(blocks)


def _block(columns: Sequence[list[str]], encode: Encode) -> np.ndarray:
    distinct = list(dict.fromkeys(chain.from_iterable(columns)))
    vectors_SD = np.asarray(encode(distinct), dtype=np.float64)
    if not np.isfinite(vectors_SD).all():
        raise RunError(
            "the encoder gives vectors that are not finite; its weights or its training are broken"
        )
    norms_S1 = np.linalg.norm(vectors_SD, axis=1, keepdims=True)
    vectors_SD /= np.where(norms_S1 == 0, 1, norms_S1)
    row = {sentence: index for index, sentence in enumerate(distinct)}
    first_ND, *others = (vectors_SD[[row[sentence] for sentence in column]] for column in columns)
    return np.stack([np.einsum("nd,nd->n", first_ND, other_ND) for other_ND in others], axis=1)
