"""Vectors and similarities of the texts of a task."""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import RunError
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Encode, Role

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_METHODS = {Role.SENTENCE: "encode", Role.QUERY: "encode_query", Role.DOCUMENT: "encode_document"}
"""Methods of sentence-transformers by role."""
_BLOCK = 4096
"""Rows per block."""


def encoding(model: "SentenceTransformer", batch_size: int = 32) -> Encode:
    """Return the `Encode` of an encoder: its own method for each role, with its own prompts.

    Args:
        model: the encoder.
        batch_size: texts in one forward pass.
    """

    def encode(texts: Sequence[str], role: Role = Role.SENTENCE, /) -> NDArray[np.float32]:
        method = getattr(model, _METHODS[role])
        vectors_ND = method(
            list(texts), batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors_ND, dtype=np.float32)

    return encode


def similarities(
    columns: Sequence[Sequence[str]], encode: Encode, similarity: Similarity = Similarity.COSINE
) -> NDArray[np.float64]:
    """Compute the similarity of each sentence of the first column with those of the other columns in its row.

    Args:
        columns: C lists of N sentences.
        encode: encoder; it gets each distinct sentence of a block once.
        similarity: the similarity to compute.

    Returns:
        Similarities [N, C - 1]; a cosine is 0 where a vector is zero.

    Raises:
        RunError: the encoder returns vectors that are not finite.
    """
    blocks = [
        _block([column[start : start + _BLOCK] for column in columns], encode, similarity)
        for start in range(0, len(columns[0]), _BLOCK)
    ]
    return np.concatenate(blocks)


def finite_vectors(texts: Sequence[str], encode: Encode, role: Role = Role.SENTENCE) -> NDArray[np.float32]:
    """Return the vectors [N, D] of N texts as the encoder gives them.

    Raises:
        RunError: the encoder returns vectors that are not finite.
    """
    vectors_ND = encode(texts, role)
    if not np.isfinite(vectors_ND).all():
        raise RunError(
            "the encoder gives vectors that are not finite; its weights or its training are broken"
        )
    return vectors_ND


def unit_vectors(texts: Sequence[str], encode: Encode, role: Role = Role.SENTENCE) -> NDArray[np.float64]:
    """Return the vectors [N, D] of N texts, of length 1; a vector of zeros stays one.

    Raises:
        RunError: the encoder returns vectors that are not finite.
    """
    return scaled_vectors(texts, encode, role, Similarity.COSINE)


def scaled_vectors(
    texts: Sequence[str], encode: Encode, role: Role, similarity: Similarity
) -> NDArray[np.float64]:
    """Return the vectors [N, D] of N texts for a similarity: of length 1 for cosine, else as they are.

    Raises:
        RunError: the encoder returns vectors that are not finite.
    """
    return similarity.scale(np.asarray(finite_vectors(texts, encode, role), dtype=np.float64))


def _block(columns: Sequence[Sequence[str]], encode: Encode, similarity: Similarity) -> NDArray[np.float64]:
    distinct = list(dict.fromkeys(chain.from_iterable(columns)))
    vectors_SD = scaled_vectors(distinct, encode, Role.SENTENCE, similarity)
    row = {sentence: index for index, sentence in enumerate(distinct)}
    first_ND, *others = (vectors_SD[[row[sentence] for sentence in column]] for column in columns)
    return np.stack([similarity.of_pairs(first_ND, other_ND) for other_ND in others], axis=1)
