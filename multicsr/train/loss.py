"""The training objectives, as pure functions of embeddings.

    N anchors of this worker     G rows of the global batch     C = 2G candidates     D width

Each returns this worker's share of the global batch's loss: the shares of all workers, however unequal, add
up to it. Candidates are the positives of all rows, then the hard negatives of all rows; the target of anchor
i is candidate `anchor_offset + i`, the positive of its own row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_TOP_SCORE = 5.0


@dataclass(frozen=True)
class LossInputs:
    """What a worker knows of one global batch."""

    anchor_ND: Tensor
    """Premises of this worker's rows."""
    positive_GD: Tensor
    """Positives of all rows, gathered."""
    temperature: float
    """tau."""
    anchor_offset: int = 0
    """Row of the first anchor in the global batch."""
    negative_GD: Tensor | None = None
    """Hard negatives of all rows; None where the objective has none."""
    keep_NC: Tensor | None = None
    """bool, True = stays, from `mask`; true at every anchor's own positive. None: all stay."""
    score_N2: Tensor | None = None
    """The LLM's scores a = (x, x+) and b = (x, x-) of this worker's rows, in [0, 5]."""


def masked_infonce(inputs: LossInputs) -> Tensor:
    """MultiCSR Eq. 7. A masked term is removed from the denominator: its logit is -inf."""
    logits_NC = _logits(inputs)
    if inputs.keep_NC is not None:
        logits_NC = logits_NC.masked_fill(~inputs.keep_NC, -torch.inf)
    return _nll(inputs, logits_NC).sum() / len(inputs.positive_GD)


def simcse_sup(inputs: LossInputs) -> Tensor:
    """Supervised SimCSE, MultiCSR Eq. 5: every other hypothesis of the batch is a negative."""
    return _nll(inputs, _logits(inputs)).sum() / len(inputs.positive_GD)


def simcse_unsup(inputs: LossInputs) -> Tensor:
    """Unsupervised SimCSE (Gao et al. 2021, Eq. 4): `simcse_sup` without hard negatives.

    `positive_GD` are the premises again, from another forward pass: dropout makes the difference.
    """
    return simcse_sup(inputs)


def multicsr_reference(inputs: LossInputs) -> Tensor:
    """The loss of MultiCSR's public code, literally, for comparison; it is not Eq. 7.

    A masked logit is multiplied by 0, so its cell stays in the softmax as e^0. The loss is a binary cross
    entropy of the softmax, -log p at the target and -log(1 - p) elsewhere, averaged over all G x C cells.

    Like theirs it is not safe: where a p rounds to 1 (in float32, where the other candidates together weigh
    less than 6e-8 of this one) it is NaN if that is the target, infinite if it is not.
    """
    logits_NC = _logits(inputs)
    if inputs.keep_NC is not None:
        logits_NC = logits_NC * inputs.keep_NC
    p_NC = logits_NC.softmax(dim=-1)
    target_NC = F.one_hot(_target(inputs), p_NC.shape[1])
    # Both terms in every cell: the NaN is the 0 * log(0) of the term that does not count.
    entropy_NC = -(target_NC * p_NC.log() + (1 - target_NC) * (1 - p_NC).log())
    return entropy_NC.mean(dim=-1).sum() / len(inputs.positive_GD)


def claif(inputs: LossInputs) -> Tensor:
    """CLAIF (Cheng et al. 2023): squared error of cosines against the LLM's scores, mean over 2G pairs.

    A row gives two pairs, (x, x+) with a / 5 and (x, x-) with b / 5; in theirs a pair stands alone.

    Raises:
        ValueError: `negative_GD` or `score_N2` is missing.
    """
    own = slice(inputs.anchor_offset, inputs.anchor_offset + len(inputs.anchor_ND))
    hypothesis_N2D = torch.stack([inputs.positive_GD, _needed(inputs.negative_GD, "negative_GD")], dim=1)[own]
    cosine_N2 = (_unit(inputs.anchor_ND)[:, None] * _unit(hypothesis_N2D)).sum(dim=-1)
    error_N2 = cosine_N2 - _needed(inputs.score_N2, "score_N2") / _TOP_SCORE
    return error_N2.square().sum() / (2 * len(inputs.positive_GD))


def clhaif(inputs: LossInputs) -> Tensor:
    """CLHAIF (Cheng et al. 2023): `simcse_sup` with a / 5 in place of the label 1 at the target.

    The form that their code trains with, `smooth_positive`; the labels of the negatives stay 0, so that b is
    not read, and a row simply weighs a / 5. Theirs mixes scores into human labels; here all labels are the
    LLM's. On several GPUs their code divides by the rows of one, here it is always a mean over G.

    Raises:
        ValueError: `score_N2` is missing.
    """
    label_N = _needed(inputs.score_N2, "score_N2")[:, 0] / _TOP_SCORE
    return (label_N * _nll(inputs, _logits(inputs))).sum() / len(inputs.positive_GD)


def _logits(inputs: LossInputs) -> Tensor:
    """Cosines over temperature, [N, C]; [N, G] without hard negatives."""
    negatives = [] if inputs.negative_GD is None else [inputs.negative_GD]
    anchor_ND, candidate_CD = _unit(inputs.anchor_ND), _unit(torch.cat([inputs.positive_GD, *negatives]))
    # Autocast would take the product in bfloat16, in which a logit of 20 moves in steps of 0.125.
    with torch.autocast(anchor_ND.device.type, enabled=False):
        return anchor_ND @ candidate_CD.T / inputs.temperature


def _unit(vector: Tensor) -> Tensor:
    """Scaled to length 1 along the last dimension, in float32 at least."""
    return F.normalize(vector.to(torch.promote_types(vector.dtype, torch.float32)), dim=-1)


def _nll(inputs: LossInputs, logits_NC: Tensor) -> Tensor:
    """-log p of every anchor's own positive, [N]."""
    return F.cross_entropy(logits_NC, _target(inputs), reduction="none")


def _target(inputs: LossInputs) -> Tensor:
    """Candidate number of every anchor's own positive, int64 [N]."""
    return inputs.anchor_offset + torch.arange(len(inputs.anchor_ND), device=inputs.anchor_ND.device)


def _needed(tensor: Tensor | None, name: str) -> Tensor:
    if tensor is None:
        raise ValueError(f"this objective needs {name}")
    return tensor
