"""Semantic textual similarity: do cosines order sentence pairs as people do?"""

import numpy as np

from multicsr.evaluate.cosine import Encode, cosines
from multicsr.evaluate.score import Score
from multicsr.evaluate.tasks import StsTask


def measure_sts(task: StsTask, encode: Encode) -> Score:
    """Spearman's rank correlation of cosine and human score, times 100.

    The "all" setting of SimCSE and MultiCSR: the subsets of a file are put together and correlated once.
    The subsets' own values are kept beside it; their mean is another, higher or lower, number.
    """
    predicted_N = cosines(task.columns(), encode)[:, 0]
    scores_N = np.asarray(task.scores)
    subsets_N = np.asarray(task.subsets)
    chosen = {name: subsets_N == name for name in dict.fromkeys(task.subsets) if name}
    return Score(
        task=task.name,
        kind="sts",
        metric="Spearman x 100",
        value=100 * spearman(predicted_N, scores_N),
        num_rows=len(scores_N),
        subsets={
            name: 100 * spearman(predicted_N[rows_N], scores_N[rows_N])
            for name, rows_N in chosen.items()
            if len(np.unique(scores_N[rows_N])) > 1
        },
    )


def spearman(predicted_N: np.ndarray, scores_N: np.ndarray) -> float:
    """Spearman's rho in [-1, 1], ties sharing their mean rank; 0 for predictions that are all equal."""
    from scipy.stats import spearmanr

    if np.ptp(predicted_N) == 0:
        return 0.0
    return float(spearmanr(predicted_N, scores_N).statistic)
