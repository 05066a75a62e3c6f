"""Scores of trainings with several seeds: the interval and the test of a difference, over examples and seeds.

A figure of a trained encoder varies with the examples that were drawn and with the seed of its training.
The variance over examples is that of the bootstrap, for the mean over the seeds; all encoders share the
resamples. The variance over seeds is that of the scores of the single trainings. Both are added, which is
somewhat too much, because how an example and a seed act together is in both.

    S trainings of a variant with different seeds     R resamples
"""

from dataclasses import dataclass
from math import sqrt

from multicsr.stages.evaluate.statistics import Floats


@dataclass(frozen=True)
class SeededScores:
    """The scores of one variant on one task."""

    value_S: Floats
    """Score of each training."""
    resampled_SR: Floats
    """Score of each training on resamples of the examples, which all variants share."""

    @property
    def mean(self) -> float:
        """Return the mean over the trainings."""
        return float(self.value_S.mean())


@dataclass(frozen=True)
class SeededDifference:
    """The difference of the means of two variants."""

    difference: float
    low: float
    """Lower end of the interval at 95%."""
    high: float
    p: float
    """p value of the two-sided test of no difference."""


def difference_over_seeds(first: SeededScores, second: SeededScores, num_examples: int) -> SeededDifference:
    """Compare the means of two variants, over examples and over seeds where a variant has several.

    The number of degrees of freedom is Satterthwaite's, so that few seeds give a wide interval.

    Args:
        first: scores of a variant.
        second: those of the one that it is compared with; the difference is first less second.
        num_examples: number of examples of the task.
    """
    from scipy.stats import t

    difference = first.mean - second.mean
    resampled_R = first.resampled_SR.mean(axis=0) - second.resampled_SR.mean(axis=0)
    parts = [(float(resampled_R.var(ddof=1)), num_examples - 1)]
    for scores in (first, second):
        if (count := len(scores.value_S)) > 1:
            parts.append((float(scores.value_S.var(ddof=1)) / count, count - 1))
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return SeededDifference(difference, difference, difference, 1.0 if difference == 0 else 0.0)
    freedom = variance**2 / sum(part**2 / number for part, number in parts if part)
    margin = sqrt(variance) * float(t.ppf(0.975, freedom))
    p = 2 * float(t.sf(abs(difference) / sqrt(variance), freedom))
    return SeededDifference(difference, difference - margin, difference + margin, p)
