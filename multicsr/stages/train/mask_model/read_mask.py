"""The mask of a worker's rows, computed from P's vectors."""

from typing import NamedTuple

import torch
from torch import Tensor

from multicsr.config import TrainConfig
from multicsr.stages.train import distributed
from multicsr.stages.train.mask_model.vector_cache import exact_cosines
from multicsr.stages.train.objectives.losses import OBJECTIVES


class Mask(NamedTuple):
    """The similarities of this worker's anchors with all candidates, and the mask that follows from them."""

    cosine_NC: Tensor
    """Cosines under P, float64."""
    keep_NC: Tensor
    """Mask, bool, True = the cell stays."""


def read_mask(config: TrainConfig, vector_GSD: Tensor) -> Mask:
    """Return the mask of this worker's anchors against all candidates (MultiCSR Eq. 6).

    Args:
        config: the settings of the training; the objective must have a mask.
        vector_GSD: P's vectors of the global batch, fp16. The mask is computed on their device.
    """
    keep = OBJECTIVES[config.objective].keep
    if keep is None or config.mask is None:
        raise AssertionError("asked for the mask of an objective that has none")
    own = distributed.own_rows(len(vector_GSD))
    candidate_CD = torch.cat([*vector_GSD[:, 1:].unbind(dim=1)])
    cosine_NC = exact_cosines(vector_GSD[own, 0], candidate_CD)
    return Mask(cosine_NC, keep(cosine_NC, config.mask.sigma, own.start))
