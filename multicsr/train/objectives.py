"""What each value of `train.objective` stands for."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from multicsr.train import loss
from multicsr.train.loss import LossInputs
from multicsr.train.mask import keep_cells, keep_cells_reference


@dataclass(frozen=True)
class Objective:
    """A loss and what has to be there for it."""

    loss: Callable[[LossInputs], Tensor]
    """A worker's share of the global batch's loss."""
    sentences: tuple[str, ...]
    """Columns of `rows.CURATED` to embed: premise, positive, hard negative. The premise alone goes through
    the encoder twice."""
    uses_scores: bool = False
    """Reads a and b."""
    keep: Callable[[Tensor, float, int], Tensor] | None = None
    """(similarity_NC, sigma, anchor_offset) -> keep_NC; None: has no mask."""


_TRIPLET = ("text", "entailment", "contradiction")

OBJECTIVES: dict[str, Objective] = {
    "masked_infonce": Objective(loss.masked_infonce, _TRIPLET, keep=keep_cells),
    "multicsr_reference": Objective(loss.multicsr_reference, _TRIPLET, keep=keep_cells_reference),
    "simcse_sup": Objective(loss.simcse_sup, _TRIPLET),
    "simcse_unsup": Objective(loss.simcse_unsup, ("text",)),
    "claif": Objective(loss.claif, _TRIPLET, uses_scores=True),
    "clhaif": Objective(loss.clhaif, _TRIPLET, uses_scores=True),
}
"""By name, for `TrainConfig.objective`."""
