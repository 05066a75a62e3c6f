"""The choice between the trained encoder, the one that it was, and merges of both.

    P premises     D width

Parameters are interpolated linearly (WiSE-FT, Wortsman et al. 2022; LM-Cocktail, Xiao et al. 2024). Training
on one kind of text costs an encoder some of what it could do before; a merge often keeps most of that and of
what was learnt. The score on dev decides, never the data of the evaluation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from multicsr.artifacts import CandidateScore, MergeCandidate, Merges
from multicsr.stages.evaluate import Task, find_tasks
from multicsr.stages.evaluate.comparison import resampled_scores
from multicsr.stages.evaluate.intervals import interval
from multicsr.stages.evaluate.task import Measurement
from multicsr.stages.train.encoder import new_encoder
from multicsr.stages.train.engines.base import Tensors
from multicsr.stages.train.job import TrainingJob
from multicsr.stages.train.monitoring.dev_evaluation import Dev

NUM_PREMISES = 400
"""Number of premises whose pairs show how far similarities have moved; 79,800 pairs."""


def choose_merge(
    job: TrainingJob,
    trained: Tensors,
    task: Task,
    premises: Sequence[str],
    report: Callable[[CandidateScore], None],
) -> tuple[Tensors, Merges]:
    """Measure all candidates, and return the parameters of the best one with the record of all.

    Args:
        job: the training; `merge` of its configuration holds the weights of the merges.
        trained: the trained parameters, from `TrainEngine.weights`.
        task: the task that chooses: dev, or held-out triplets where there is no dev.
        premises: P premises, on which similarities before and after are compared.
        report: receives every candidate when it is measured.

    Raises:
        ConfigError: a task of `train.keep` or the encoder cannot be used.
        RunError: a candidate gives vectors that are not finite.
    """
    config, base = job.config, new_encoder(job).model.state_dict()
    dev = Dev(config, task, job.encoder)
    keep = find_tasks(config.keep).tasks if config.keep else []
    candidates: list[MergeCandidate] = []
    on_dev: dict[float, Measurement] = {}
    before: NDArray[np.float32] | None = None
    weights = (0.0, *(config.merge or []), 1.0)
    for number, weight in enumerate(weights, start=1):
        measured = dev.examine(interpolated(base, trained, weight))
        on_dev[weight] = measured
        cosine = _pair_cosines(dev.encode(premises))
        before = cosine if before is None else before
        candidates.append(
            MergeCandidate(
                weight=weight,
                dev=measured.score.value,
                kept={task.name: dev.measure_also(task) for task in keep},
                same_similarities=100 * _rank_correlation(before, cosine),
            )
        )
        report(
            CandidateScore(candidate=number, candidates=len(weights), weight=weight, dev=measured.score.value)
        )
    merges = choose(candidates, config.keep_tolerance if keep else None)
    update: dict[str, object] = {"chosen_on": "dev" if config.dev is not None else task.name}
    if merges.has_helped:
        update |= _interval_of_gain(on_dev[0], on_dev[merges.chosen])
    merges = merges.model_copy(update=update)
    return interpolated(base, trained, merges.chosen), merges


def choose(candidates: Sequence[MergeCandidate], tolerance: float | None) -> Merges:
    """Return the record of the candidates with the best one on dev.

    Args:
        candidates: the candidates by rising weight; the first is the encoder as it was, which may always be
            chosen.
        tolerance: points that a candidate may lose on a task of `train.keep`; None: there is no such task.
    """
    before = candidates[0].kept
    allowed = [
        each.model_copy(
            update={"is_allowed": all(each.kept[name] >= before[name] - (tolerance or 0) for name in before)}
        )
        for each in candidates
    ]
    # `max` returns the first of several: the one that changes the encoder least.
    best = max((each for each in allowed if each.is_allowed), key=lambda each: each.dev)
    return Merges(candidates=allowed, chosen=best.weight, tolerance=tolerance)


def interpolated(base: Tensors, trained: Tensors, weight: float) -> Tensors:
    """Return (1 - weight) x base + weight x trained, exactly one of the two at weight 0 and 1.

    Adapters change the encoder by the product of two matrices, B A, and B is zero before the training: with
    the trained A and a share of B, that product has this share too.
    """
    return dict(_interpolated(base, trained, weight))


def _interpolated(base: Tensors, trained: Tensors, weight: float) -> Iterator[tuple[str, torch.Tensor]]:
    for name, after in trained.items():
        before = base[name].to(after)
        if weight == 1 or ".lora_A." in name or not after.is_floating_point():
            yield name, after
        else:
            yield (
                name,
                before if weight == 0 else torch.lerp(before.double(), after.double(), weight).to(after),
            )


def _interval_of_gain(before: Measurement, after: Measurement) -> Mapping[str, float]:
    """Return the interval at 95% of the winner's difference to the encoder as it was, by paired bootstrap."""
    resampled_2R = resampled_scores([before, after])
    if resampled_2R is None:
        return {}
    before_R, after_R = resampled_2R
    return interval(after.score.value - before.score.value, after_R - before_R)._asdict()


def _pair_cosines(vector_PD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of every pair of vectors."""
    unit_PD = vector_PD / np.linalg.norm(vector_PD, axis=1, keepdims=True)
    cosine_PP = unit_PD @ unit_PD.T
    pairs: NDArray[np.float32] = cosine_PP[np.triu_indices(len(cosine_PP), k=1)]
    return pairs


def _rank_correlation(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Return Spearman's correlation; 1 if there are too few pairs or they are all equal."""
    if len(before) < 2 or np.ptp(before) == 0 or np.ptp(after) == 0:
        return 1.0
    return float(spearmanr(before, after).statistic)
