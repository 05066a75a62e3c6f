"""The contrastive losses, as pure functions of embeddings.

    N anchors of this worker     G rows of the global batch     C candidates     D width

The target of anchor i is candidate `anchor_offset + i`: the positive of its own row.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_infonce(
    anchor_ND: Tensor,
    candidate_CD: Tensor,
    keep_NC: Tensor,
    temperature: float,
    anchor_offset: int = 0,
) -> Tensor:
    """MultiCSR Eq. 7, mean over the anchors; with an all-true mask, supervised SimCSE (Eq. 5).

    A masked term is removed from the denominator (its logit is -inf). The authors' public code multiplies
    the logit by 0 instead, which leaves e^0 in the sum.

    Args:
        anchor_ND: embeddings of the premises.
        candidate_CD: positives of all rows, then hard negatives of all rows (C = 2G).
        keep_NC: bool, True = stays, from `mask.keep_cells`; true at every anchor's own positive.
        temperature: tau.
        anchor_offset: row of the first anchor in the global batch.

    Returns:
        A scalar. With equally many anchors per worker, the mean over workers is the mean over the batch.
    """
    logits_NC = F.normalize(anchor_ND, dim=-1) @ F.normalize(candidate_CD, dim=-1).T / temperature
    logits_NC = logits_NC.masked_fill(~keep_NC, -torch.inf)
    target_N = anchor_offset + torch.arange(len(anchor_ND), device=anchor_ND.device)
    return F.cross_entropy(logits_NC, target_N)


def simcse_unsup(first_ND: Tensor, second_GD: Tensor, temperature: float, anchor_offset: int = 0) -> Tensor:
    """Unsupervised SimCSE: each sentence against itself under another dropout mask, the rest as negatives.

    Args:
        first_ND: embeddings of the sentences.
        second_GD: embeddings of the sentences of all rows, from another forward pass.
        temperature: tau.
        anchor_offset: row of the first sentence in the global batch.
    """
    keep_NG = torch.ones(len(first_ND), len(second_GD), dtype=torch.bool, device=first_ND.device)
    return masked_infonce(first_ND, second_GD, keep_NG, temperature, anchor_offset)
