"""Measurements whose value is the mean of one value of each example, or the share of right examples."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Examples, Measurement, Score, Task


def mean_measurement(
    task: Task,
    metric: str,
    value_N: NDArray[np.float64],
    subsets: Mapping[str, float] | None = None,
    similarity: Similarity | None = None,
) -> Measurement:
    """Return a measurement whose value is the mean of the values of its N examples.

    Args:
        task: the task that is measured.
        metric: name and scale of the metric, such as `accuracy x 100`.
        value_N: value of each example, in the scale of the metric.
        subsets: values of the metric on subsets of the examples.
        similarity: similarity that vectors were compared by, if they were.
    """
    score = _score(task, metric, float(np.mean(value_N)), len(value_N), subsets, similarity)
    return Measurement(score, Examples("mean", np.asarray(value_N, dtype=np.float64)[:, None]))


def share_measurement(
    task: Task,
    metric: str,
    right_N: NDArray[np.bool_],
    subsets: Mapping[str, float] | None = None,
    similarity: Similarity | None = None,
) -> Measurement:
    """Return a measurement whose value is the share of the N examples that are right, times 100.

    Args:
        task: the task that is measured.
        metric: name of the metric with its scale, such as `accuracy x 100`.
        right_N: True for an example that is right.
        subsets: shares of subsets of the examples, times 100.
        similarity: similarity that vectors were compared by, if they were.
    """
    right_N1 = right_N.astype(np.float64)[:, None]
    score = _score(task, metric, 100 * float(np.mean(right_N)), len(right_N), subsets, similarity)
    return Measurement(score, Examples("share", right_N1, scale=100))


def _score(
    task: Task,
    metric: str,
    value: float,
    num_rows: int,
    subsets: Mapping[str, float] | None,
    similarity: Similarity | None,
) -> Score:
    return Score(
        task=task.name,
        kind=task.kind,
        metric=metric,
        value=value,
        num_rows=num_rows,
        subsets=dict(subsets or {}),
        similarity=similarity,
    )


def means_by_name(value_N: NDArray[np.float64], names: Sequence[str]) -> dict[str, float]:
    """Return the mean of the values of each name but the empty one, in the order of first occurrence."""
    names_N = np.asarray(names)
    return {name: float(np.mean(value_N[names_N == name])) for name in dict.fromkeys(names) if name}
