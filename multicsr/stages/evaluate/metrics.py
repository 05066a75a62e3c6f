"""Metrics of one encoder on one task: Spearman correlation on STS, accuracy on triplets."""

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from multicsr.artifacts import FileRecord
from multicsr.errors import RunError
from multicsr.labelled_files import StsTask, Task, TripletTask

Encode = Callable[[list[str]], np.ndarray]
"""A function from S sentences to vectors [S, D], which need not have length 1."""

_BLOCK = 4096
"""Rows per block."""


class Score(FileRecord):
    """Result of one encoder on one task."""

    task: str
    kind: str
    """Kind of the task: `sts` or `triplets`."""
    metric: str
    """Name and scale of the metric in `value`, such as `Spearman x 100`."""
    value: float
    num_rows: int
    """Number of pairs or triplets that were measured."""
    subsets: dict[str, float] = {}
    """Value of the metric on each subset of an STS file alone, where it is defined."""


def measure(task: Task, encode: Encode) -> Score:
    """Measure an encoder on one task.

    Args:
        task: from `read_task` or `find_tasks`.
        encode: function from S sentences to vectors [S, D], which need not have length 1.

    Raises:
        RunError: the encoder returns vectors that are not finite.
    """
    return measure_sts(task, encode) if isinstance(task, StsTask) else measure_triplets(task, encode)


def measure_sts(task: StsTask, encode: Encode) -> Score:
    """Compute Spearman's rank correlation of cosine and human score, times 100.

    This is the "all" setting of SimCSE and MultiCSR: the subsets of a file are concatenated and correlated
    once. The values of the single subsets are reported in addition; their mean is a different number, which
    may be higher or lower.
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
    """Compute Spearman's rho, in [-1, 1].

    Tied values get their mean rank. The result is 0 if all predictions are equal.

    Args:
        predicted_N: cosines.
        scores_N: human scores, not all equal.
    """
    from scipy.stats import spearmanr

    if np.ptp(predicted_N) == 0:
        return 0.0
    return float(spearmanr(predicted_N, scores_N).statistic)


def measure_triplets(task: TripletTask, encode: Encode) -> Score:
    """Compute the share of the triplets, times 100, with cos(anchor, positive) > cos(anchor, negative).

    A tie counts as wrong, so that an encoder that maps every sentence to one vector gets 0.
    """
    cosines_N2 = cosines(task.columns(), encode)
    return Score(
        task=task.name,
        kind="triplets",
        metric="accuracy x 100",
        value=100 * float(np.mean(cosines_N2[:, 0] > cosines_N2[:, 1])),
        num_rows=len(cosines_N2),
    )


def cosines(columns: Sequence[list[str]], encode: Encode) -> np.ndarray:
    """Compute the cosine of each sentence of the first column with those of the other columns in its row.

    Args:
        columns: C lists of N sentences.
        encode: encoder; it gets each distinct sentence of a block once.

    Returns:
        Cosines, float64 [N, C - 1]; 0 where a vector is zero.

    Raises:
        RunError: the encoder returns vectors that are not finite.
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
