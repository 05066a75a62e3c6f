"""Expected scores, MultiCSR Eq. 3 without text: the mean of the scale under the label probabilities.

The paper reads the number in the model's text. The expectation over the score labels is our addition: it
needs one prefill instead of decoding, has hardly any ties, and needs no parsing.
"""

import numpy as np
from numpy.typing import NDArray

EXPECTATION = 1
"""Version of the computation of expected scores; it is among the settings that decide the scores."""


def expected_scores(probabilities_NL: NDArray[np.float64]) -> NDArray[np.float32]:
    """Compute the expected score of each row, sum_i i * p_i / sum_i p_i: label i is worth i points.

    Args:
        probabilities_NL: [N, L] label probabilities; rows need not sum to 1.

    Returns:
        [N] expected scores.
    """
    points_L = np.arange(probabilities_NL.shape[1])
    # A sum, because the result of a BLAS product may depend on the number of rows.
    weighted_N = (probabilities_NL * points_L).sum(axis=1)
    expected_N: NDArray[np.float32] = (weighted_N / probabilities_NL.sum(axis=1)).astype(np.float32)
    return expected_N
