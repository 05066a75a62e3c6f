"""The loss and its mask against a double loop that follows MultiCSR Eq. 6-7 letter by letter."""

import math

import pytest
import torch
from torch.nn import functional as F

from multicsr.train.loss import masked_infonce, simcse_unsup
from multicsr.train.mask import keep_cells, similarity

N, D, TAU, SIGMA = 7, 5, 0.05, 0.4


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def anchor_ND():
    return draw(N, D, seed=0).requires_grad_()


@pytest.fixture
def candidate_CD():
    return draw(2 * N, D, seed=1).requires_grad_()


@pytest.fixture
def p_ND():
    return draw(N, D, seed=2)


@pytest.fixture
def p_CD():
    return draw(2 * N, D, seed=3)


def cosine(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (u * v).sum() / ((u * u).sum().sqrt() * (v * v).sum().sqrt())


def plain_keep(p_x, p_plus, p_minus, sigma: float) -> dict[tuple[int, int, str], bool]:
    """M of Eq. 6 as a table."""
    rows = range(len(p_x))
    return {
        (i, k, sign): not (k != i and cosine(p_x[i], p_s[k]).item() >= sigma)
        for i in rows
        for k in rows
        for sign, p_s in (("+", p_plus), ("-", p_minus))
    }


def plain_loss(h, h_plus, h_minus, keep, tau: float) -> torch.Tensor:
    """Eq. 7, one anchor and one term at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(h)):
        denominator = torch.zeros((), dtype=torch.float64)
        for k in range(len(h)):
            for sign, h_s in (("+", h_plus), ("-", h_minus)):
                if keep[i, k, sign]:
                    denominator = denominator + torch.exp(cosine(h[i], h_s[k]) / tau)
        total = total - torch.log(torch.exp(cosine(h[i], h_plus[i]) / tau) / denominator)
    return total / len(h)


def gradients(loss: torch.Tensor, *leaves: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, leaves))


def test_mask_is_equation_6(p_ND, p_CD):
    keep_NC = keep_cells(similarity(p_ND, p_CD), SIGMA)
    table = plain_keep(p_ND, p_CD[:N], p_CD[N:], SIGMA)
    for i in range(N):
        for k in range(N):
            assert keep_NC[i, k].item() == table[i, k, "+"]
            assert keep_NC[i, N + k].item() == table[i, k, "-"]
    assert 0 < (~keep_NC).sum() < N * N, "the example must mask something"


def test_own_positive_and_own_hard_negative_are_never_masked():
    same_ND = torch.ones(N, D)
    keep_NC = keep_cells(similarity(same_ND, torch.ones(2 * N, D)), 0.1)
    assert torch.equal(keep_NC, torch.eye(N, dtype=torch.bool).repeat(1, 2))


def test_a_cell_exactly_at_sigma_is_masked():
    keep_NC = keep_cells(torch.tensor([[0.5, 0.25, 0.1, 0.1], [0.2499, 0.3, 0.1, 0.25]]), 0.25)
    assert keep_NC.tolist() == [[True, False, True, True], [True, True, True, True]]


def test_loss_and_gradients_equal_a_double_loop(anchor_ND, candidate_CD, p_ND, p_CD):
    keep_NC = keep_cells(similarity(p_ND, p_CD), SIGMA)
    loss = masked_infonce(anchor_ND, candidate_CD, keep_NC, TAU)
    table = plain_keep(p_ND, p_CD[:N], p_CD[N:], SIGMA)
    expected = plain_loss(anchor_ND, candidate_CD[:N], candidate_CD[N:], table, TAU)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(loss, anchor_ND, candidate_CD),
        gradients(expected, anchor_ND, candidate_CD),
        rtol=1e-10,
        atol=1e-12,
    )


def test_without_a_mask_it_is_supervised_simcse(anchor_ND, candidate_CD):
    everything_NC = torch.ones(N, 2 * N, dtype=torch.bool)
    loss = masked_infonce(anchor_ND, candidate_CD, everything_NC, TAU)
    # SimCSE's words: cosines of z1 with z2 beside those of z1 with z3, cross entropy on the diagonal.
    z1, z2, z3 = anchor_ND, candidate_CD[:N], candidate_CD[N:]
    cos = torch.nn.CosineSimilarity(dim=-1)
    logits = torch.cat([cos(z1[:, None], z2[None]), cos(z1[:, None], z3[None])], dim=1) / TAU
    expected = torch.nn.CrossEntropyLoss()(logits, torch.arange(N))
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(loss, anchor_ND, candidate_CD), gradients(expected, anchor_ND, candidate_CD)
    )


@pytest.mark.parametrize("other", [0.0, 1e6, -3.0])
def test_a_masked_term_has_no_influence(anchor_ND, candidate_CD, other):
    """One anchor of row 2; candidates 0 (a positive) and N + 4 (a hard negative) are masked for it."""
    masked = [0, N + 4]
    keep_1C = torch.ones(1, 2 * N, dtype=torch.bool)
    keep_1C[0, masked] = False
    anchor_1D = anchor_ND[2:3].detach().requires_grad_()
    changed_CD = candidate_CD.detach().clone()
    changed_CD[masked] = other
    changed_CD.requires_grad_()
    before = masked_infonce(anchor_1D, candidate_CD, keep_1C, TAU, anchor_offset=2)
    after = masked_infonce(anchor_1D, changed_CD, keep_1C, TAU, anchor_offset=2)
    assert before.item() == after.item()
    gradient_before = gradients(before, anchor_1D, candidate_CD)
    gradient_after = gradients(after, anchor_1D, changed_CD)
    assert torch.equal(gradient_before[0], gradient_after[0])
    assert torch.equal(gradient_before[1], gradient_after[1])
    assert torch.count_nonzero(gradient_after[1][masked]) == 0
    # The same without those candidates: they are not even in the denominator.
    rest = [c for c in range(2 * N) if c not in masked]
    logits = F.cosine_similarity(anchor_1D, changed_CD[rest]) / TAU
    assert after.item() == pytest.approx(-F.log_softmax(logits, dim=0)[rest.index(2)].item(), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_at_similarity_1(dtype):
    """The authors' binary form gives NaN here: positive at 1, every negative at -1, and the reverse."""
    anchor_ND = torch.ones(N, D, dtype=dtype, requires_grad=True)
    for positive, negative in ((1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)):
        candidate_CD = torch.cat([torch.full((N, D), positive), torch.full((N, D), negative)]).to(dtype)
        candidate_CD.requires_grad_()
        keep_NC = torch.eye(N, dtype=torch.bool).repeat(1, 2)
        loss = masked_infonce(anchor_ND, candidate_CD, keep_NC, TAU)
        assert math.isfinite(loss.item())
        assert all(g.isfinite().all() for g in gradients(loss, anchor_ND, candidate_CD))


@pytest.mark.parametrize("workers", [1, 7])
@pytest.mark.parametrize("batch", [7, 14])
def test_slices_of_the_batch_add_up_to_the_whole(batch, workers):
    """A worker's anchors against all candidates, with its offset: same mask, loss and gradient (Eq. 6-7)."""
    anchor_GD, candidate_CD = draw(batch, D, seed=4), draw(2 * batch, D, seed=5)
    p_GD, p_CD = draw(batch, D, seed=6), draw(2 * batch, D, seed=7)
    anchor_GD.requires_grad_()
    candidate_CD.requires_grad_()
    keep_GC = keep_cells(similarity(p_GD, p_CD), SIGMA)
    whole = masked_infonce(anchor_GD, candidate_CD, keep_GC, TAU)
    parts, n = [], batch // workers
    for start in range(0, batch, n):
        keep_NC = keep_cells(similarity(p_GD[start : start + n], p_CD), SIGMA, anchor_offset=start)
        assert torch.equal(keep_NC, keep_GC[start : start + n])
        parts.append(masked_infonce(anchor_GD[start : start + n], candidate_CD, keep_NC, TAU, start))
    mean = torch.stack(parts).mean()
    torch.testing.assert_close(mean, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(mean, anchor_GD, candidate_CD), gradients(whole, anchor_GD, candidate_CD)
    )


def test_unsupervised_simcse_is_cross_entropy_of_a_batch_with_itself(anchor_ND):
    second_ND = draw(N, D, seed=8)
    cos = torch.nn.CosineSimilarity(dim=-1)
    expected = torch.nn.CrossEntropyLoss()(cos(anchor_ND[:, None], second_ND[None]) / TAU, torch.arange(N))
    torch.testing.assert_close(simcse_unsup(anchor_ND, second_ND, TAU), expected, rtol=1e-12, atol=1e-12)
