"""Cosines whose bits are a function of the two vectors alone."""

from torch import Tensor


def exact_cosines(anchor_ND: Tensor, candidate_CD: Tensor) -> Tensor:
    """Return cosines of unit vectors that are rounded to fp16. No vector may be zero.

    A product of two fp16 numbers needs 22 bits, and a sum of thousands of them fits into the 53 bits of a
    float64, so no sum is rounded. Root and quotient are rounded as IEEE 754 prescribes. So the bits of a
    cosine, and with them the mask, do not depend on the slice of the batch, the device or the order of
    summation. The rounding to fp16 changes a cosine by less than 1e-3. Equal vectors get exactly 1, because
    the root of a square is exact: sigma = 1 masks equal texts.

    Returns:
        Cosines, float64 [N, C].
    """
    anchor_ND, candidate_CD = anchor_ND.double(), candidate_CD.double()
    square_N1, square_C = anchor_ND.square().sum(dim=-1, keepdim=True), candidate_CD.square().sum(dim=-1)
    return anchor_ND @ candidate_CD.T / (square_N1 * square_C).sqrt()
