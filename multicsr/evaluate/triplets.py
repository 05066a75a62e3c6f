"""Triplets: is the anchor nearer to its positive than to its negative?"""

import numpy as np

from multicsr.evaluate.cosine import Encode, cosines
from multicsr.evaluate.score import Score
from multicsr.evaluate.tasks import TripletTask


def measure_triplets(task: TripletTask, encode: Encode) -> Score:
    """Share of the triplets, times 100, with cos(anchor, positive) > cos(anchor, negative).

    A tie counts as wrong, so that an encoder with one vector for everything gets 0.
    """
    cosines_N2 = cosines(task.columns(), encode)
    return Score(
        task=task.name,
        kind="triplets",
        metric="accuracy x 100",
        value=100 * float(np.mean(cosines_N2[:, 0] > cosines_N2[:, 1])),
        num_rows=len(cosines_N2),
    )
