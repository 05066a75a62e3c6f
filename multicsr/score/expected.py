"""MultiCSR Eq. 3 without text: the mean of the scale under the label probabilities.

The paper reads the number in the model's text. An expectation over the score labels is our addition: it
needs one prefill instead of decoding, has hardly any ties, and cannot fail to parse.
"""

import numpy as np
from numpy.typing import NDArray

PROBABILITY_STEP = 1 / 256
"""Label probabilities are multiples of this."""


def expected_scores(probabilities_NL: NDArray[np.float64]) -> NDArray[np.float32]:
    """[N] sum_i i * p_i / sum_i p_i: label i is worth i points. Rows need not sum to 1."""
    points_L = np.arange(probabilities_NL.shape[1])
    # A sum and not a product with BLAS, whose result may depend on the number of rows.
    weighted_N = (probabilities_NL * points_L).sum(axis=1)
    expected_N: NDArray[np.float32] = (weighted_N / probabilities_NL.sum(axis=1)).astype(np.float32)
    return expected_N


def round_probabilities(p_L: NDArray[np.float64], tie_gap: float) -> tuple[NDArray[np.float64], bool]:
    """(Probabilities in multiples of `PROBABILITY_STEP`, False where noise might have changed them).

    Rounding hides what batching does to the last digits, unless a probability lies next to a rounding edge.
    """
    # A shift of the logits below tie_gap / 2 moves p by less than this.
    slack_L = p_L * (1 - p_L) * np.expm1(tie_gap)
    to_edge_L = np.abs(p_L / PROBABILITY_STEP % 1 - 0.5) * PROBABILITY_STEP
    is_certain = bool((to_edge_L >= slack_L).all())
    return np.round(p_L / PROBABILITY_STEP) * PROBABILITY_STEP, is_certain
