"""The similarities by which vectors are compared: those that an encoder may declare as its own."""

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Floats = NDArray[np.float64]


class Similarity(StrEnum):
    """A similarity of two vectors, higher for nearer ones, by its name in sentence-transformers."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    """The negative distance."""
    MANHATTAN = "manhattan"
    """The negative sum of absolute differences."""

    def scale(self, vectors_ND: Floats) -> Floats:
        """Return vectors for `of_pairs` and `of_all`: of length 1 for cosine; a vector of zeros stays one."""
        if self is not Similarity.COSINE:
            return vectors_ND
        norms_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return np.asarray(vectors_ND / np.where(norms_N1 == 0, 1, norms_N1))

    def of_pairs(self, first_ND: Floats, second_ND: Floats) -> Floats:
        """Compute the similarity of each pair of N scaled vectors, [N]; one vector [D] is paired with all.

        Equal pairs have equal values to the last bit.
        """
        if self is Similarity.EUCLIDEAN:
            return -np.asarray(np.linalg.norm(first_ND - second_ND, axis=-1))
        if self is Similarity.MANHATTAN:
            return -np.asarray(np.abs(first_ND - second_ND).sum(axis=-1))
        return np.asarray(np.einsum("...d,...d->...", first_ND, second_ND))

    def of_all(self, first_ND: NDArray[np.floating], second_MD: NDArray[np.floating]) -> NDArray[np.floating]:
        """Compute the similarities of each of N scaled vectors with each of M others, [N, M]."""
        if self in (Similarity.COSINE, Similarity.DOT):
            return np.asarray(first_ND @ second_MD.T)
        from scipy.spatial.distance import cdist

        metric = "euclidean" if self is Similarity.EUCLIDEAN else "cityblock"
        return -np.asarray(cdist(first_ND, second_MD, metric))


def similarity_of(model: "SentenceTransformer") -> Similarity:
    """Return the similarity that an encoder declares; cosine if it declares none."""
    return Similarity(getattr(model, "similarity_fn_name", None) or Similarity.COSINE)
