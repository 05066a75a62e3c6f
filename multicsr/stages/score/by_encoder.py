"""Scorer by an encoder: the cosine of the two sentences (MultiCSR Sec. 6, "Discussion").

The cosine of two sentences lies mostly in [0, 1]. The scale is that of STS, 5 * max(cos, 0): equal sentences
get 5, unrelated ones about 0.
"""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from multicsr.llm.base import Rejection
from multicsr.models.frozen_encoder import FrozenEncoder
from multicsr.stages.score.scorer import COLUMNS, DECIMALS, PairScore


class EncoderScorer:
    """Scorer by the cosine under an encoder. Thread-safe."""

    column = COLUMNS["encoder"]

    def __init__(self, encoder: FrozenEncoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()

    def score(
        self, pairs: Sequence[tuple[str, str]], row_ids: Sequence[str]
    ) -> Sequence[PairScore | Rejection]:
        """Implement `Scorer.score`."""
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        with self._lock:
            vector_TD = self._encoder.embed(texts).astype(np.float64)
        row = {text: index for index, text in enumerate(texts)}
        first_ND, second_ND = (vector_TD[[row[text] for text in side]] for side in zip(*pairs, strict=True))
        return [PairScore(score) for score in cosine_scores(first_ND, second_ND).tolist()]


def cosine_scores(first_ND: NDArray[np.float64], second_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 5 * max(cos, 0) of the vectors in each row, [N]."""
    norm_N = np.linalg.norm(first_ND, axis=1) * np.linalg.norm(second_ND, axis=1)
    cosine_N = (first_ND * second_ND).sum(axis=1) / norm_N
    scores_N: NDArray[np.float64] = (5 * np.clip(cosine_N, 0, 1)).round(DECIMALS)
    return scores_N
