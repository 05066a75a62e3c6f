"""The registry of objectives: the loss and the mask of each value of `train.objective`."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from multicsr.stages.train.objectives import losses
from multicsr.stages.train.objectives.losses import LossInputs
from multicsr.stages.train.objectives.mask import keep_cells, keep_cells_reference


@dataclass(frozen=True)
class Objective:
    """A loss and its inputs."""

    loss: Callable[[LossInputs], Tensor]
    """Function that returns a worker's share of the loss of the global batch."""
    sentences: tuple[str, ...]
    """Columns of `rows.CURATED` to embed: premise, positive, hard negative. If there is only the premise, it
    is encoded twice."""
    uses_scores: bool = False
    """True if the loss uses the scores a and b."""
    keep: Callable[[Tensor, float, int], Tensor] | None = None
    """Mask function (similarity_NC, sigma, anchor_offset) -> keep_NC; None: the objective has no mask."""


_TRIPLET = ("text", "entailment", "contradiction")
"""Columns of premise, positive and hard negative."""

OBJECTIVES: dict[str, Objective] = {
    "masked_infonce": Objective(losses.masked_infonce, _TRIPLET, keep=keep_cells),
    "multicsr_reference": Objective(losses.multicsr_reference, _TRIPLET, keep=keep_cells_reference),
    "simcse_sup": Objective(losses.simcse_sup, _TRIPLET),
    "simcse_unsup": Objective(losses.simcse_unsup, ("text",)),
    "claif": Objective(losses.claif, _TRIPLET, uses_scores=True),
    "clhaif": Objective(losses.clhaif, _TRIPLET, uses_scores=True),
}
"""Objectives by name, for `TrainConfig.objective`."""
