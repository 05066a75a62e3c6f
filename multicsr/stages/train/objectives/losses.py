"""The training objectives, as pure functions of embeddings, and `OBJECTIVES`, the table of them.

    N anchors of this worker     G rows of the global batch     C candidates     D width
    H hard negatives: C = G + H, and H = G unless rows have none

Each function returns this worker's share of the loss of the global batch. The shares of all workers add up to
that loss, also if the workers own different numbers of rows. The loss is the mean of the anchors' losses; if
rows have weights, the weighted mean: the sum of weight x loss over the G anchors, divided by the sum of the G
weights. The weight of a row decides how much its anchor counts, not how much its hypotheses count among the
candidates of others. Candidates are the positives of all rows, then the hard negatives of all rows that have
one. The target of anchor i is candidate `anchor_offset + i`, the positive of its
own row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from multicsr.stages.train.objectives.mask import keep_cells, keep_cells_gist, keep_cells_reference

_TOP_SCORE = 5.0
"""Highest score that the LLM gives."""


@dataclass(frozen=True)
class LossInputs:
    """The embeddings, the mask and the scores of one global batch on one worker."""

    anchor_ND: Tensor
    """Embeddings of the premises of this worker's rows."""
    positive_GD: Tensor
    """Embeddings of the positives of all rows, gathered from all workers."""
    temperature: float
    """Temperature tau."""
    anchor_offset: int = 0
    """Row of the first anchor in the global batch."""
    negative_GD: Tensor | None = None
    """Embeddings [H, D] of the hard negatives of all rows that have one; None if the objective has none."""
    keep_NC: Tensor | None = None
    """Mask, bool, True = the cell stays, from `mask`; True at every anchor's own positive. None: all cells
    stay."""
    score_N2: Tensor | None = None
    """The LLM's scores a = (x, x+) and b = (x, x-) of this worker's rows, in [0, 5]."""
    weight_G: Tensor | None = None
    """Weights of all rows, positive; None: all rows count the same."""
    label_smoothing: float = 0.0
    """Part s of CLAIF's smoothing: a label y becomes (1 - s) y + s / 2."""
    random_pairs: int = 0
    """Number R of pairs of an anchor with a hypothesis of another row that CLAIF adds with the label 0."""
    premise_GD: Tensor | None = None
    """Embeddings of the premises of all rows; None if the objective does not compare premises."""
    keep_same_N2G: Tensor | None = None
    """Mask, bool, True = the cell stays, of this worker's anchors with the premises of all rows, then of
    their positives with the positives of all rows; None if the objective does not compare them."""


@dataclass(frozen=True)
class Objective:
    """A loss, the columns that it reads and its mask."""

    loss: Callable[[LossInputs], Tensor]
    """Function that returns a worker's share of the loss of the global batch."""
    sentences: tuple[str, ...]
    """Columns of `rows.CURATED` to embed: premise, positive, hard negative. If there is only the premise, it
    is encoded twice."""
    uses_scores: bool = False
    """True if the loss uses the scores a and b."""
    keep: Callable[[Tensor, float, int], Tensor] | None = None
    """Mask function (similarity_NC, sigma, anchor_offset) -> keep_NC; None: the objective has no mask."""
    compares_same: bool = False
    """True if premises are compared with premises and positives with positives too, under a mask
    (`keep_same_gist`)."""
    needs_mask: bool = False
    """True if the loss cannot do without the mask; otherwise `keep_NC` and `keep_same_N2G` may be None."""
    takes_labelled: bool = False
    """True if the loss is right for rows of `train.extra_triplets`: they have weights (`weight_G`), and may
    have no hard negative, so that row i of `negative_GD` need not be that of row i of the batch."""


def masked_infonce(inputs: LossInputs) -> Tensor:
    """Compute masked InfoNCE (MultiCSR Eq. 7).

    A masked term is removed from the denominator: its logit is -inf.
    """
    logits_NC = _logits(inputs)
    if inputs.keep_NC is not None:
        logits_NC = logits_NC.masked_fill(~inputs.keep_NC, -torch.inf)
    return _share(inputs, _nll(inputs, logits_NC))


def simcse_sup(inputs: LossInputs) -> Tensor:
    """Compute supervised SimCSE (MultiCSR Eq. 5): every other hypothesis of the batch is a negative."""
    return _share(inputs, _nll(inputs, _logits(inputs)))


def simcse_unsup(inputs: LossInputs) -> Tensor:
    """Compute unsupervised SimCSE (Gao et al. 2021, Eq. 4): `simcse_sup` without hard negatives.

    `positive_GD` are the premises again, from another forward pass, which differs by its dropout.
    """
    return simcse_sup(inputs)


def multicsr_reference(inputs: LossInputs) -> Tensor:
    """Compute the loss of MultiCSR's public code exactly, for comparison; it is not Eq. 7.

    A masked logit is multiplied by 0, so its cell stays in the softmax as e^0. The loss is a binary cross
    entropy of the softmax, -log p at the target and -log(1 - p) elsewhere, averaged over all G x C cells.

    Like the public code it is numerically unsafe. If a p rounds to 1 (in float32, if the other candidates
    together weigh less than 6e-8 of this one), the loss is NaN if that cell is the target and infinite if
    not.
    """
    logits_NC = _logits(inputs)
    if inputs.keep_NC is not None:
        logits_NC = logits_NC * inputs.keep_NC
    p_NC = logits_NC.softmax(dim=-1)
    target_NC = F.one_hot(_target(inputs), p_NC.shape[1])
    # Both terms are computed in every cell. The NaN is the 0 * log(0) of the term that does not count.
    entropy_NC = -(target_NC * p_NC.log() + (1 - target_NC) * (1 - p_NC).log())
    return _share(inputs, entropy_NC.mean(dim=-1))


def claif(inputs: LossInputs) -> Tensor:
    """Compute CLAIF (Cheng et al. 2023): squared error of cosines against LLM scores, mean over all pairs.

    A row gives two pairs, (x, x+) with a / 5 and (x, x-) with b / 5; in CLAIF's own data each pair is
    separate. With `random_pairs` R it gives R more, with the label 0: row i with the positive of row i + 1,
    the hard negative of row i + 2, and so on; rows stand in a batch by chance. The mean is then over
    (2 + R) G pairs.

    Raises:
        ValueError: `negative_GD` or `score_N2` is missing.
    """
    own = slice(inputs.anchor_offset, inputs.anchor_offset + len(inputs.anchor_ND))
    sides = inputs.positive_GD, _needed(inputs.negative_GD, "negative_GD")
    hypothesis_N2D = torch.stack(sides, dim=1)[own]
    anchor_N1D = _unit(inputs.anchor_ND)[:, None]
    cosine_N2 = (anchor_N1D * _unit(hypothesis_N2D)).sum(dim=-1)
    smooth = inputs.label_smoothing
    label_N2 = (1 - smooth) * _needed(inputs.score_N2, "score_N2") / _TOP_SCORE + smooth / 2
    total = (cosine_N2 - label_N2).square().sum()
    if inputs.random_pairs:
        distances = range(1, inputs.random_pairs + 1)
        others_NRD = torch.stack([sides[(d - 1) % 2].roll(-d, dims=0) for d in distances], dim=1)[own]
        total = total + (anchor_N1D * _unit(others_NRD)).sum(dim=-1).square().sum()
    return total / ((2 + inputs.random_pairs) * len(inputs.positive_GD))


def clhaif(inputs: LossInputs) -> Tensor:
    """Compute CLHAIF (Cheng et al. 2023): `simcse_sup` with a / 5 instead of the label 1 at the target.

    This is the form that the authors' code trains with, `smooth_positive`. The labels of the negatives stay
    0, so b is not used, and the loss of a row has the weight a / 5. The authors mix scores into human labels;
    here all labels are the LLM's. On several GPUs their code divides by the rows of one GPU; here it is
    always a mean over G.

    Raises:
        ValueError: `score_N2` is missing.
    """
    label_N = _needed(inputs.score_N2, "score_N2")[:, 0] / _TOP_SCORE
    return _share(inputs, label_N * _nll(inputs, _logits(inputs)))


def gist(inputs: LossInputs) -> Tensor:
    """Compute the loss of GISTEmbed (Solatorio 2024): InfoNCE in which P decides what is a negative.

    Candidates of an anchor are the positives and hard negatives of all rows, the premises of all rows and,
    compared with the anchor's own positive, the positives of all rows. P removes each one that it finds
    nearer than the anchor's own positive is to the anchor.

    Raises:
        ValueError: `premise_GD`, `keep_NC` or `keep_same_N2G` is missing.
    """
    anchor_ND, positive_GD = _unit(inputs.anchor_ND), _unit(inputs.positive_GD)
    own_ND = positive_GD[inputs.anchor_offset : inputs.anchor_offset + len(anchor_ND)]
    with torch.autocast(anchor_ND.device.type, enabled=False):
        same = [anchor_ND @ _unit(_needed(inputs.premise_GD, "premise_GD")).T, own_ND @ positive_GD.T]
    keep = [_needed(inputs.keep_NC, "keep_NC"), _needed(inputs.keep_same_N2G, "keep_same_N2G")]
    logits = torch.cat([_logits(inputs), *(cosine_NG / inputs.temperature for cosine_NG in same)], dim=1)
    return _share(inputs, _nll(inputs, logits.masked_fill(~torch.cat(keep, dim=1), -torch.inf)))


def mean_over_widths(
    loss: Callable[[LossInputs], Tensor], inputs: LossInputs, widths: Sequence[int]
) -> Tensor:
    """Return the mean of a loss over the whole vectors and over their first entries (Matryoshka).

    Kusupati et al. 2022, Eq. 1, with equal weights, divided by their sum, so that the learning rate and the
    norm at which gradients are clipped keep their meaning.

    Args:
        loss: one of this module.
        inputs: embeddings of width D.
        widths: numbers of first entries, each below D.
    """
    whole = loss(inputs)
    return torch.stack([whole, *(loss(_shortened(inputs, width)) for width in widths)]).mean()


TRIPLET = ("text", "entailment", "contradiction")
"""Columns of premise, positive and hard negative."""

OBJECTIVES: dict[str, Objective] = {
    "masked_infonce": Objective(masked_infonce, TRIPLET, keep=keep_cells, takes_labelled=True),
    "multicsr_reference": Objective(
        multicsr_reference, TRIPLET, keep=keep_cells_reference, needs_mask=True, takes_labelled=True
    ),
    "simcse_sup": Objective(simcse_sup, TRIPLET, takes_labelled=True),
    "simcse_unsup": Objective(simcse_unsup, ("text",)),
    "gist": Objective(
        gist, TRIPLET, keep=keep_cells_gist, compares_same=True, needs_mask=True, takes_labelled=True
    ),
    "claif": Objective(claif, TRIPLET, uses_scores=True),
    "clhaif": Objective(clhaif, TRIPLET, uses_scores=True),
}
"""Objectives by name, for `TrainConfig.objective`."""


def _share(inputs: LossInputs, loss_N: Tensor) -> Tensor:
    """Return this worker's share of the mean over all G anchors, given the losses of its own."""
    if inputs.weight_G is None:
        return loss_N.sum() / len(inputs.positive_GD)
    own = slice(inputs.anchor_offset, inputs.anchor_offset + len(loss_N))
    return (inputs.weight_G[own] * loss_N).sum() / inputs.weight_G.sum()


def _shortened(inputs: LossInputs, width: int) -> LossInputs:
    """Return the inputs with the first `width` entries of every embedding."""
    negative_GD, premise_GD = inputs.negative_GD, inputs.premise_GD
    return replace(
        inputs,
        anchor_ND=inputs.anchor_ND[:, :width],
        positive_GD=inputs.positive_GD[:, :width],
        negative_GD=None if negative_GD is None else negative_GD[:, :width],
        premise_GD=None if premise_GD is None else premise_GD[:, :width],
    )


def _logits(inputs: LossInputs) -> Tensor:
    """Return cosines divided by the temperature, [N, C]."""
    negatives = [] if inputs.negative_GD is None else [inputs.negative_GD]
    anchor_ND, candidate_CD = _unit(inputs.anchor_ND), _unit(torch.cat([inputs.positive_GD, *negatives]))
    # Autocast would compute the product in bfloat16, in which a logit of 20 has a resolution of 0.125.
    with torch.autocast(anchor_ND.device.type, enabled=False):
        return anchor_ND @ candidate_CD.T / inputs.temperature


def _unit(vector: Tensor) -> Tensor:
    """Return vectors scaled to length 1 along the last dimension, in at least float32."""
    return F.normalize(vector.to(torch.promote_types(vector.dtype, torch.float32)), dim=-1)


def _nll(inputs: LossInputs, logits_NC: Tensor) -> Tensor:
    """Return -log p of every anchor's own positive, [N]."""
    return F.cross_entropy(logits_NC, _target(inputs), reduction="none")


def _target(inputs: LossInputs) -> Tensor:
    """Return the candidate number of every anchor's own positive, int64 [N]."""
    return inputs.anchor_offset + torch.arange(len(inputs.anchor_ND), device=inputs.anchor_ND.device)


def _needed(tensor: Tensor | None, name: str) -> Tensor:
    """Return the tensor, or raise ValueError if it is None."""
    if tensor is None:
        raise ValueError(f"this objective needs {name}")
    return tensor
