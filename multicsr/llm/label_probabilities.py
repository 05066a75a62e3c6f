"""Rounding that makes label probabilities independent of the batching of requests."""

import numpy as np
from numpy.typing import NDArray

PROBABILITY_STEP = 1 / 256
"""Unit of label probabilities: each is a multiple of it."""


def round_probabilities(p_L: NDArray[np.float64], tie_gap: float) -> tuple[NDArray[np.float64], bool]:
    """Round probabilities to multiples of `PROBABILITY_STEP`.

    Rounding hides the effect of batching on the last digits, unless a probability lies next to a rounding
    edge.

    Args:
        p_L: [L] probabilities.
        tie_gap: twice the bound of the noise in the logarithm of a probability before normalisation.

    Returns:
        [L] rounded probabilities, and False if noise might have changed one of them.
    """
    # A shift of these logarithms below tie_gap / 2 moves p by less than this.
    slack_L = p_L * (1 - p_L) * np.expm1(tie_gap)
    to_edge_L = np.abs(p_L / PROBABILITY_STEP % 1 - 0.5) * PROBABILITY_STEP
    is_certain = bool((to_edge_L >= slack_L).all())
    return np.round(p_L / PROBABILITY_STEP) * PROBABILITY_STEP, is_certain
