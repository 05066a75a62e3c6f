"""Cosine thresholds of an encoder: from which cosine on two sentences match, at a given precision.

Labelled pairs are needed: those of a triplet (anchor and positive match, anchor and negative do not), pairs
with labels 1 and 0, or scored pairs on a scale whose upper end is "the same meaning". Sentences that match
need not mean the same: an entailment follows from its anchor and may mean less. The precision of a threshold
depends on the share of pairs that match, so this share is recorded with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multicsr.artifacts import FileRecord
from multicsr.stages.evaluate.kinds.pair_classification import PairClassificationTask
from multicsr.stages.evaluate.kinds.sts import StsTask
from multicsr.stages.evaluate.kinds.triplets import TripletTask
from multicsr.stages.evaluate.task import Encode, Task
from multicsr.stages.evaluate.vectors import similarities
from multicsr.stages.score.intervals import wilson_interval

PRECISIONS = (0.90, 0.95, 0.99)
"""Precisions for which thresholds are computed."""
_SAME_SCORE, _TOP_SCORE = 4.0, 5.0
"""STS scores from 0 to 5: 4 is "mostly equivalent, unimportant details differ", 5 "equivalent" (SemEval)."""
_MAX_ROWS = 5_000
"""Maximum number of rows of a task that are encoded; more would not change a threshold's second digit."""
_RESAMPLES, _RESAMPLES_AT_ONCE = 1_000, 50
_SEED = 0
_LEVELS = (0.025, 0.975)
"""Quantiles of an interval at 95%."""


class Threshold(FileRecord):
    """The smallest cosine from which on a precision is reached, on one set of labelled pairs."""

    precision: float
    """The precision that was asked for, in [0, 1]."""
    cosine: float
    """Pairs with this cosine or a larger one have the precision."""
    cosine_interval: tuple[float, float]
    """Interval of the cosine at 95%, by bootstrap over rows; a resample without one counts as 1."""
    precision_interval: tuple[float, float]
    """Wilson interval at 95% of the precision that pairs from this cosine on have."""
    recall: float
    """Share of the matching pairs that have this cosine or a larger one."""
    num_pairs: int
    """Number of pairs that have this cosine or a larger one."""


class TaskThresholds(FileRecord):
    """The thresholds of one encoder on one task."""

    task: str
    same: str
    """Definition of the pairs that match, for readers."""
    num_pairs: int
    num_same: int
    thresholds: list[Threshold]
    """Thresholds of those of `PRECISIONS` that are reached."""


class ThresholdsFile(FileRecord):
    """The file of the thresholds of an encoder."""

    tasks: list[TaskThresholds]


@dataclass(frozen=True)
class LabelledPairs:
    """N pairs of sentences with labels; all lists have the same length."""

    same: str
    """Definition of the pairs that match, for readers."""
    sentences1: Sequence[str]
    sentences2: Sequence[str]
    same_N: NDArray[np.bool_]
    group_N: NDArray[np.int64]
    """Number of the row that a pair comes from; the pairs of one row are resampled together."""


def labelled_pairs(task: Task) -> LabelledPairs | None:
    """Return the labelled pairs of a task; None if its labels do not show which pairs match."""
    if isinstance(task, TripletTask):
        rows = _spread(len(task.anchors))
        return LabelledPairs(
            "anchor and positive of a triplet",
            _chosen(task.anchors, rows) * 2,
            _chosen(task.positives, rows) + _chosen(task.negatives, rows),
            np.repeat([True, False], len(rows)),
            np.tile(np.arange(len(rows)), 2),
        )
    if isinstance(task, PairClassificationTask):
        same, same_N = "pairs with label 1", np.array(task.labels) == 1
    elif isinstance(task, StsTask) and 1 < max(task.scores) <= _TOP_SCORE and min(task.scores) >= 0:
        same = f"pairs with a score of at least {_SAME_SCORE:g} of {_TOP_SCORE:g}"
        same_N = np.array(task.scores) >= _SAME_SCORE
    else:
        return None
    rows = _spread(len(same_N))
    first, second = (_chosen(column, rows) for column in (task.sentences1, task.sentences2))
    return LabelledPairs(same, first, second, same_N[rows], np.arange(len(rows)))


def _spread(num_rows: int) -> NDArray[np.int64]:
    """Return the numbers of at most `_MAX_ROWS` rows, spread evenly: a file may be ordered by subset."""
    return np.unique(np.linspace(0, num_rows - 1, min(num_rows, _MAX_ROWS)).astype(np.int64))


def _chosen(column: Sequence[str], rows: NDArray[np.int64]) -> list[str]:
    return [column[row] for row in rows]


def measure_thresholds(tasks: Sequence[Task], encode: Encode) -> list[TaskThresholds]:
    """Compute the thresholds of an encoder on every task whose labels show which pairs match.

    A task without pairs of both kinds is left out.

    Raises:
        RunError: the encoder returns vectors that are not finite.
    """
    found = []
    for task in tasks:
        pairs = labelled_pairs(task)
        if pairs is None or pairs.same_N.all() or not pairs.same_N.any():
            continue
        cosine_N = similarities([pairs.sentences1, pairs.sentences2], encode)[:, 0]
        found.append(
            TaskThresholds(
                task=task.name,
                same=pairs.same,
                num_pairs=len(cosine_N),
                num_same=int(pairs.same_N.sum()),
                thresholds=thresholds(cosine_N, pairs.same_N, pairs.group_N),
            )
        )
    return found


def thresholds(
    cosine_N: NDArray[np.float64], same_N: NDArray[np.bool_], group_N: NDArray[np.int64]
) -> list[Threshold]:
    """Return the threshold for each of `PRECISIONS` that is reached.

    Args:
        cosine_N: cosine of each pair.
        same_N: True for pairs that match.
        group_N: number of each pair's row, from 0; the pairs of one row are resampled together.
    """
    order = np.argsort(-cosine_N, kind="stable")
    cosine_N, same_N, group_N = cosine_N[order], same_N[order], group_N[order]
    # A threshold takes all pairs of one cosine or none.
    last_K = np.flatnonzero(np.append(cosine_N[1:] < cosine_N[:-1], True))
    cosine_K = cosine_N[last_K]
    place_P = _places(same_N[None].astype(float), np.ones((1, len(same_N))), last_K)[0]
    low_P, high_P = np.quantile(_resampled(cosine_K, same_N, group_N, last_K), _LEVELS, axis=0)
    found = []
    for precision, place, low, high in zip(PRECISIONS, place_P, low_P, high_P, strict=True):
        if place < 0:
            continue
        num_pairs = int(last_K[place]) + 1
        num_same = int(same_N[:num_pairs].sum())
        found.append(
            Threshold(
                precision=precision,
                cosine=float(cosine_K[place]),
                cosine_interval=(float(low), float(high)),
                precision_interval=wilson_interval(num_same / num_pairs, num_pairs),
                recall=num_same / int(same_N.sum()),
                num_pairs=num_pairs,
            )
        )
    return found


def _places(
    same_BN: NDArray[np.float64], count_BN: NDArray[np.float64], last_K: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the largest index into `last_K` at which each precision is reached [B, P]; -1: it never is.

    Args:
        same_BN: number of times that a pair occurs and means the same, in order of falling cosine.
        count_BN: number of times that a pair occurs.
        last_K: index of the last pair of each distinct cosine.
    """
    same_BK = same_BN.cumsum(axis=1)[:, last_K]
    count_BK = count_BN.cumsum(axis=1)[:, last_K]
    occurs_BK = np.diff(count_BK, axis=1, prepend=0) > 0
    precision_BK = same_BK / np.maximum(count_BK, 1)
    numbers_K = np.arange(len(last_K))
    reached = [occurs_BK & (precision_BK >= precision) for precision in PRECISIONS]
    return np.stack([np.where(reached_BK, numbers_K, -1).max(axis=1) for reached_BK in reached], axis=1)


def _resampled(
    cosine_K: NDArray[np.float64],
    same_N: NDArray[np.bool_],
    group_N: NDArray[np.int64],
    last_K: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the thresholds of resamples of the rows [`_RESAMPLES`, P]; 1 where one is not reached."""
    draw = np.random.default_rng(_SEED)
    num_groups = int(group_N.max()) + 1
    share_G = np.full(num_groups, 1 / num_groups)
    blocks = []
    for _ in range(_RESAMPLES // _RESAMPLES_AT_ONCE):
        count_BG = draw.multinomial(num_groups, share_G, size=_RESAMPLES_AT_ONCE)
        count_BN = count_BG[:, group_N].astype(float)
        place_BP = _places(count_BN * same_N, count_BN, last_K)
        blocks.append(np.where(place_BP < 0, 1.0, cosine_K[place_BP]))
    return np.concatenate(blocks)
