"""Comparison of encoders on the same tasks: intervals, paired tests, shared ranks, averages."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from multicsr.artifacts import FileRecord
from multicsr.stages.evaluate.intervals import (
    Interval,
    interval,
    p_of_permutations,
    p_of_resamples,
    permute,
    resample,
)
from multicsr.stages.evaluate.ranking import shared_ranks
from multicsr.stages.evaluate.statistics import STATISTICS, Floats
from multicsr.stages.evaluate.task import Examples, Measurement, Score
from multicsr.stages.score.intervals import wilson_interval

Pair = tuple[int, int]
"""Numbers of two encoders."""


class Comparison(FileRecord):
    """The difference of two encoders' scores on the same examples."""

    task: str
    """Name of the task, or of the average over tasks."""
    metric: str
    encoder: str
    reference: str
    """Name of the encoder that is compared with: the first one of the evaluation, or another that was asked
    for."""
    difference: float
    """Score of the encoder less that of the reference."""
    low: float
    """Lower end of the interval of the difference at 95%, by bootstrap over the examples."""
    high: float
    """Upper end of the interval."""
    p: float
    """p value of the two-sided paired test of no difference, not corrected for the number of tests."""


class Ranking(FileRecord):
    """The ranks of all encoders in one metric of a task, or of the average over tasks."""

    task: str
    metric: str
    ranks: dict[str, int]
    """Rank by encoder: one more than the number of encoders whose score is higher and that the paired test
    distinguishes from this one, at 5% with Holm's correction over all pairs."""


class Compared(NamedTuple):
    """The result of a comparison."""

    scores: list[list[Score]]
    """Scores of each encoder, with their intervals."""
    averages: list[list[Score]]
    """Averages of each encoder over the tasks of a kind; `subsets` has the scores that were averaged."""
    comparisons: list[Comparison]
    rankings: list[Ranking]


@dataclass(frozen=True)
class _Samples:
    """The scores of E encoders on resamples, and the differences of each two of them after swaps."""

    resampled_ER: Floats
    swapped: Mapping[Pair, Floats] | None
    """None: the results of two encoders on single examples cannot be swapped."""

    def difference(self, pair: Pair) -> Floats:
        """Return the differences on resamples, first less second."""
        return np.asarray(self.resampled_ER[pair[0]] - self.resampled_ER[pair[1]])

    def p(self, pair: Pair, difference: float) -> float:
        """Return the p value of the difference of two encoders."""
        if self.swapped is None:
            return p_of_resamples(self.difference(pair))
        return p_of_permutations(difference, self.swapped[pair])


@dataclass(frozen=True)
class _Row:
    """The scores of all encoders in one metric of a task, or of the average over tasks."""

    scores: Sequence[Score]
    """Scores with their intervals."""
    samples: _Samples | None
    """None: the scores are no functions of single examples."""

    def difference(self, pair: Pair) -> float:
        """Return the difference of two scores, first less second."""
        return self.scores[pair[0]].value - self.scores[pair[1]].value

    def comparisons(self, labels: Sequence[str], pairs: Sequence[Pair]) -> list[Comparison]:
        """Compare the first encoder of each pair with the second."""
        if self.samples is None:
            return []
        return [self._comparison(self.samples, labels, pair) for pair in pairs]

    def _comparison(self, samples: _Samples, labels: Sequence[str], pair: Pair) -> Comparison:
        encoder, reference = pair
        difference = self.difference(pair)
        return Comparison(
            task=self.scores[0].task,
            metric=self.scores[0].metric,
            encoder=labels[encoder],
            reference=labels[reference],
            difference=difference,
            p=samples.p(pair, difference),
            **interval(difference, samples.difference(pair))._asdict(),
        )

    def rankings(self, labels: Sequence[str]) -> list[Ranking]:
        """Rank the encoders, if there are several; the list has one element or none."""
        if self.samples is None or len(labels) == 1:
            return []
        p_values = {pair: self.samples.p(pair, self.difference(pair)) for pair in _pairs(len(labels))}
        ranks = shared_ranks([score.value for score in self.scores], p_values)
        first = self.scores[0]
        return [Ranking(task=first.task, metric=first.metric, ranks=dict(zip(labels, ranks, strict=True)))]


def compare(
    labels: Sequence[str],
    measured: Sequence[Sequence[Measurement]],
    left_out: Collection[str] = (),
    also: Collection[Pair] = (),
) -> Compared:
    """Compare encoders in every metric of every task, and in the averages over the tasks of each kind.

    Args:
        labels: names of the encoders; the first one is the reference.
        measured: measurements of each encoder, in the same order.
        left_out: names of tasks that do not belong in averages, because another task contains their examples.
        also: pairs that are compared besides those with the first encoder, the greater number first.
    """
    pairs = [*((encoder, 0) for encoder in range(1, len(labels))), *also]
    rows = [_row(measurements) for measurements in zip(*measured, strict=True)]
    averages = _averages([row for row in rows if row.scores[0].task not in left_out])
    return Compared(
        scores=_columns([row.scores for row in rows], len(labels)),
        averages=_columns([row.scores for row in averages], len(labels)),
        comparisons=[each for row in (*rows, *averages) for each in row.comparisons(labels, pairs)],
        rankings=[each for row in (*rows, *averages) for each in row.rankings(labels)],
    )


def _row(measurements: Sequence[Measurement]) -> _Row:
    scores = [measurement.score for measurement in measurements]
    resampled_ER = resampled_scores(measurements)
    if resampled_ER is None:
        return _Row(scores, None)
    examples = [each.examples for each in measurements if each.examples is not None]
    scores = [
        score.model_copy(update=_interval_of(score, each, resampled_R)._asdict())
        for score, each, resampled_R in zip(scores, examples, resampled_ER, strict=True)
    ]
    if not STATISTICS[examples[0].statistic].can_swap:
        return _Row(scores, _Samples(resampled_ER, None))
    key = scores[0].task
    swapped = {
        (first, second): permute(examples[first], examples[second], key) * examples[first].scale
        for first, second in _pairs(len(scores))
    }
    return _Row(scores, _Samples(resampled_ER, swapped))


def resampled_scores(measurements: Sequence[Measurement]) -> Floats | None:
    """Return the scores of E encoders in one metric of a task on resamples of the examples, [E, R].

    Returns None if a score is no function of single examples.
    """
    examples = [each.examples for each in measurements if each.examples is not None]
    if len(examples) < len(measurements):
        return None
    scales = np.array([each.scale for each in examples])
    return np.asarray(resample(examples, measurements[0].score.task) * scales[:, None])


def _interval_of(score: Score, examples: Examples, resampled_R: Floats) -> Interval:
    """Return the interval of a score: Wilson's for a share, else that of the resamples.

    All resamples of a share of 0 or 1 are equal, although other examples might give another share. A mean of
    zeros and one other value, such as a recall of single documents, is a multiple of a share.
    """
    value_N = examples.value_NK[:, 0]
    highest = 1.0 if examples.statistic == "share" else float(value_N.max())
    is_share = examples.statistic in ("mean", "share") and np.isin(value_N, (0, highest)).all()
    if not is_share or highest <= 0:
        return interval(score.value, resampled_R)
    unit = examples.scale * highest
    low, high = wilson_interval(float(np.mean(value_N == highest)), len(value_N))
    return Interval(unit * low, unit * high)


def _averages(rows: Sequence[_Row]) -> list[_Row]:
    """Return the averages of the main metrics over the tasks of each kind that has several tasks."""
    main = {row.scores[0].task: row for row in reversed(rows)}
    groups: dict[tuple[str, str], list[_Row]] = {}
    for row in reversed(main.values()):
        groups.setdefault((row.scores[0].kind, row.scores[0].metric), []).append(row)
    return [_average(group) for group in groups.values() if len(group) > 1]


def _average(rows: Sequence[_Row]) -> _Row:
    """Return the average of rows; examples of different tasks are resampled and swapped independently."""
    kind = rows[0].scores[0].kind
    scores = [
        Score(
            task=f"average of {len(rows)} {kind} tasks",
            kind=kind,
            metric=of_encoder[0].metric,
            value=float(np.mean([score.value for score in of_encoder])),
            num_rows=sum(score.num_rows for score in of_encoder),
            subsets={score.task: score.value for score in of_encoder},
        )
        for of_encoder in zip(*(row.scores for row in rows), strict=True)
    ]
    samples = [row.samples for row in rows if row.samples is not None]
    if len(samples) < len(rows):
        return _Row(scores, None)
    average = _average_of_samples(samples)
    scores = [
        score.model_copy(update=interval(score.value, resampled_R)._asdict())
        for score, resampled_R in zip(scores, average.resampled_ER, strict=True)
    ]
    return _Row(scores, average)


def _average_of_samples(samples: Sequence[_Samples]) -> _Samples:
    resampled_ER = np.mean([each.resampled_ER for each in samples], axis=0)
    swapped = [each.swapped for each in samples if each.swapped is not None]
    if len(swapped) < len(samples):
        return _Samples(resampled_ER, None)
    return _Samples(
        resampled_ER, {pair: np.mean([each[pair] for each in swapped], axis=0) for pair in swapped[0]}
    )


def _pairs(num_encoders: int) -> list[Pair]:
    """Return all pairs of numbers, the greater number first."""
    return [(first, second) for second, first in combinations(range(num_encoders), 2)]


def _columns(rows: Sequence[Sequence[Score]], num_encoders: int) -> list[list[Score]]:
    return [[row[number] for row in rows] for number in range(num_encoders)]
