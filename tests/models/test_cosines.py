import itertools
from fractions import Fraction

import pytest
import torch

from multicsr.models.cosines import exact_cosines


def unit_vectors(num: int, width: int, seed: int) -> torch.Tensor:
    """Rounded to fp16, with large and with hardly any components."""
    draw = torch.Generator().manual_seed(seed)
    value = torch.randn(num, width, generator=draw, dtype=torch.float64)
    value *= 2.0 ** -torch.randint(0, 24, (num, width), generator=draw)
    return torch.nn.functional.normalize(value, dim=-1).half()


@pytest.mark.parametrize("width", [3, 384, 4096])
def test_cosines_are_exact_but_for_the_last_digit(width):
    """The square of a cosine is a fraction."""
    anchor_ND, candidate_CD = unit_vectors(3, width, 0), unit_vectors(4, width, 1)
    cosine_NC = exact_cosines(anchor_ND, candidate_CD)
    for n, c in itertools.product(range(3), range(4)):
        x_D, y_D = ([Fraction(v) for v in row.tolist()] for row in (anchor_ND[n], candidate_CD[c]))
        dot = sum(x * y for x, y in zip(x_D, y_D, strict=True))
        square = dot * dot / (sum(x * x for x in x_D) * sum(y * y for y in y_D))
        assert (cosine_NC[n, c].item() > 0) == (dot > 0)
        assert abs(Fraction(cosine_NC[n, c].item()) ** 2 / square - 1) < 1e-15


@pytest.mark.parametrize("width", [3, 384, 4096])
def test_the_cosine_of_equal_vectors_is_exactly_one_and_of_others_below(width):
    """So that sigma = 1 means equal sentences, whatever the last bit of a vector's length is."""
    vector_ND = unit_vectors(300, width, 0)
    cosine_NN = exact_cosines(vector_ND, vector_ND)
    same_NN = (vector_ND[:, None] == vector_ND).all(dim=-1)
    assert torch.equal(cosine_NN == 1, same_NN)
    assert cosine_NN.max() == 1
    assert (vector_ND.double().square().sum(dim=-1) < 1).any(), "their plain products would differ from 1"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("width", [384, 1024])
def test_cosines_have_the_same_bits_on_a_gpu(width):
    anchor_ND, candidate_CD = unit_vectors(512, width, 0), unit_vectors(1024, width, 1)
    there_NC = exact_cosines(anchor_ND.cuda(), candidate_CD.cuda())
    assert torch.equal(there_NC.cpu(), exact_cosines(anchor_ND, candidate_CD))


@pytest.mark.parametrize("width", [384, 1024])
def test_cosines_have_the_same_bits_for_any_slice_and_order_of_summation(width):
    anchor_ND, candidate_CD = unit_vectors(33, width, 0), unit_vectors(70, width, 1)
    whole_NC = exact_cosines(anchor_ND, candidate_CD)
    order_D = torch.randperm(width, generator=torch.Generator().manual_seed(2))
    assert torch.equal(exact_cosines(anchor_ND[:, order_D], candidate_CD[:, order_D]), whole_NC)
    for start, end in [(0, 1), (1, 17), (30, 33)]:
        assert torch.equal(exact_cosines(anchor_ND[start:end], candidate_CD), whole_NC[start:end])
        assert torch.equal(exact_cosines(anchor_ND, candidate_CD[start:end]), whole_NC[:, start:end])
