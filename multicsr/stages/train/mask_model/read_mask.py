"""The mask of a worker's rows, computed from P's vectors."""

from typing import NamedTuple

import torch
from torch import Tensor

from multicsr.config import TrainConfig
from multicsr.models.cosines import exact_cosines
from multicsr.stages.train import distributed
from multicsr.stages.train.objectives.load import load_objective
from multicsr.stages.train.objectives.mask import keep_same_gist, own_positive_cosines


class Mask(NamedTuple):
    """The similarities of this worker's anchors with all candidates, and the mask that follows from them."""

    cosine_NC: Tensor
    """Cosines under P, float64."""
    keep_NC: Tensor
    """Mask, bool, True = the cell stays."""
    keep_same_N2G: Tensor | None = None
    """Mask of premises with premises and positives with positives; None if the objective compares none."""


def read_mask(config: TrainConfig, vector_GSD: Tensor) -> Mask:
    """Return the mask of this worker's anchors against all candidates (MultiCSR Eq. 6).

    Args:
        config: the settings of the training; the objective must have a mask.
        vector_GSD: P's vectors of the global batch, fp16. The mask is computed on their device.
    """
    objective = load_objective(config.objective)
    if objective.keep is None or config.mask is None:
        raise AssertionError("asked for the mask of an objective that has none")
    own = distributed.own_rows(len(vector_GSD))
    candidate_CD = torch.cat([*vector_GSD[:, 1:].unbind(dim=1)])
    cosine_NC = exact_cosines(vector_GSD[own, 0], candidate_CD)
    keep_NC = objective.keep(cosine_NC, config.mask.sigma, own.start)
    if not objective.compares_same:
        return Mask(cosine_NC, keep_NC)
    same_N2G = torch.cat([exact_cosines(vector_GSD[own, s], vector_GSD[:, s]) for s in range(2)], dim=1)
    threshold_N1 = own_positive_cosines(cosine_NC, own.start)
    return Mask(cosine_NC, keep_NC, keep_same_gist(threshold_N1, same_N2G, own.start))
