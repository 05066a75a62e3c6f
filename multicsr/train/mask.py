"""Which cells of the batch stay in the loss (MultiCSR Eq. 6).

    N anchors of this worker     G rows of the global batch     C = 2G candidates     D width of P's vectors

Candidates are the positives of all rows, then the hard negatives of all rows: candidate c belongs to row
c mod G.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def similarity(anchor_ND: Tensor, candidate_CD: Tensor) -> Tensor:
    """Cosines under P, float64 [N, C].

    float64, so that a worker's slice and the whole batch agree on the cells that lie at sigma.
    """
    anchor_ND = F.normalize(anchor_ND.double(), dim=-1)
    candidate_CD = F.normalize(candidate_CD.double(), dim=-1)
    return anchor_ND @ candidate_CD.T


def own_row(num_anchors: int, num_candidates: int, anchor_offset: int, device: torch.device) -> Tensor:
    """bool [N, C], True where candidate and anchor come from the same row."""
    num_rows = num_candidates // 2
    anchor_row_N1 = anchor_offset + torch.arange(num_anchors, device=device)[:, None]
    candidate_row_C = torch.arange(num_candidates, device=device) % num_rows
    return anchor_row_N1 == candidate_row_C


def keep_cells(similarity_NC: Tensor, sigma: float, anchor_offset: int = 0) -> Tensor:
    """The mask M of MultiCSR Eq. 6: a cell goes iff it is another row's and P finds it similar.

    Args:
        similarity_NC: cosines under P, from `similarity`.
        sigma: cosine from which another row's hypothesis is a false negative.
        anchor_offset: row of the first anchor in the global batch.

    Returns:
        keep_NC, bool, True = stays. An anchor's own positive and own hard negative always stay.
    """
    num_anchors, num_candidates = similarity_NC.shape
    own_NC = own_row(num_anchors, num_candidates, anchor_offset, similarity_NC.device)
    return own_NC | (similarity_NC < sigma)


def keep_cells_reference(similarity_NC: Tensor, sigma: float, anchor_offset: int = 0) -> Tensor:
    """The mask of MultiCSR's public code: as `keep_cells`, but an anchor's own hard negative can go.

    Only the own positive is safe, and a cell exactly at sigma stays, where Eq. 6 masks it.
    """
    num_anchors, num_candidates = similarity_NC.shape
    own_positive_NC = own_row(num_anchors, num_candidates, anchor_offset, similarity_NC.device)
    own_positive_NC[:, num_candidates // 2 :] = False
    return own_positive_NC | (similarity_NC <= sigma)
