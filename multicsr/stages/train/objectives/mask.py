"""The mask: the cells of the batch that stay in the loss (MultiCSR Eq. 6).

    N anchors of this worker     G rows of the global batch     C = 2G candidates     D width of P's vectors

Candidates are the positives of all rows, then the hard negatives of all rows: candidate c belongs to row
c mod G.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def similarity(anchor_ND: Tensor, candidate_CD: Tensor, equal_NC: Tensor | None = None) -> Tensor:
    """Return cosines under P.

    They are computed in float64, so that a worker's slice and the whole batch agree on the cells at sigma.

    Args:
        anchor_ND: P's vectors of the anchors.
        candidate_CD: P's vectors of the candidates.
        equal_NC: bool, True where anchor and candidate are the same text. The two vectors of such a text may
            differ in the last bits, because they were computed in different batches; their cosine is set to
            1.

    Returns:
        Cosines, float64 [N, C].
    """
    anchor_ND = F.normalize(anchor_ND.double(), dim=-1)
    candidate_CD = F.normalize(candidate_CD.double(), dim=-1)
    similarity_NC = anchor_ND @ candidate_CD.T
    return similarity_NC if equal_NC is None else similarity_NC.masked_fill(equal_NC, 1.0)


def own_row(num_anchors: int, num_candidates: int, anchor_offset: int, device: torch.device) -> Tensor:
    """Return bool [N, C], True for an anchor and a candidate from the same row.

    Args:
        num_anchors: N.
        num_candidates: C.
        anchor_offset: row of the first anchor in the global batch.
        device: device of the result.
    """
    num_rows = num_candidates // 2
    anchor_row_N1 = anchor_offset + torch.arange(num_anchors, device=device)[:, None]
    candidate_row_C = torch.arange(num_candidates, device=device) % num_rows
    return anchor_row_N1 == candidate_row_C


def keep_cells(similarity_NC: Tensor, sigma: float, anchor_offset: int = 0) -> Tensor:
    """Return the mask M of MultiCSR Eq. 6.

    A cell is removed if and only if its candidate belongs to another row and has a cosine of at least sigma.

    The paper compares sentences, x^k != x; this function compares row numbers, k != i. The two differ if
    another row has the same premise: here its hypotheses are masked if P finds them similar, while by the
    paper's text they would stay negatives. In training there is no difference, because no batch contains a
    sentence twice (`sampler.py`).

    Args:
        similarity_NC: cosines under P, from `similarity`.
        sigma: cosine from which another row's hypothesis is a false negative.
        anchor_offset: row of the first anchor in the global batch.

    Returns:
        keep_NC, bool, True = the cell stays. An anchor's own positive and own hard negative always stay.
    """
    num_anchors, num_candidates = similarity_NC.shape
    own_NC = own_row(num_anchors, num_candidates, anchor_offset, similarity_NC.device)
    return own_NC | (similarity_NC < sigma)


def keep_cells_reference(similarity_NC: Tensor, sigma: float, anchor_offset: int = 0) -> Tensor:
    """Return the mask of MultiCSR's public code; arguments and result are those of `keep_cells`.

    It differs from `keep_cells` in two points. Only an anchor's own positive always stays, so its own hard
    negative can be removed. A cell exactly at sigma stays, while Eq. 6 removes it.
    """
    num_anchors, num_candidates = similarity_NC.shape
    own_positive_NC = own_row(num_anchors, num_candidates, anchor_offset, similarity_NC.device)
    own_positive_NC[:, num_candidates // 2 :] = False
    return own_positive_NC | (similarity_NC <= sigma)


def keep_cells_gist(similarity_NC: Tensor, _sigma: float, anchor_offset: int = 0) -> Tensor:
    """Return the mask of GISTEmbed (Solatorio 2024); arguments and result are those of `keep_cells`.

    A cell is removed if its cosine is above that of the anchor with its own positive, so sigma has no effect
    and the own hard negative can be removed. The own positive always stays.
    """
    num_anchors, num_candidates = similarity_NC.shape
    own_positive_NC = own_row(num_anchors, num_candidates, anchor_offset, similarity_NC.device)
    own_positive_NC[:, num_candidates // 2 :] = False
    return own_positive_NC | (similarity_NC <= own_positive_cosines(similarity_NC, anchor_offset))


def keep_same_gist(threshold_N1: Tensor, similarity_N2G: Tensor, anchor_offset: int = 0) -> Tensor:
    """Return the mask of GISTEmbed for cells of premises with premises and of positives with positives.

    A cell is removed if it belongs to the anchor's own row, or if its cosine is above the threshold.

    Args:
        threshold_N1: `own_positive_cosines`.
        similarity_N2G: cosines of the anchors with all premises, then of their positives with all positives.
        anchor_offset: row of the first anchor in the global batch.
    """
    num_anchors, num_cells = similarity_N2G.shape
    own_N2G = own_row(num_anchors, num_cells, anchor_offset, similarity_N2G.device)
    return ~own_N2G & (similarity_N2G <= threshold_N1)


def own_positive_cosines(similarity_NC: Tensor, anchor_offset: int) -> Tensor:
    """Return the cosine of each anchor with its own positive, [N, 1]."""
    return similarity_NC.diagonal(offset=anchor_offset)[: len(similarity_NC), None]
