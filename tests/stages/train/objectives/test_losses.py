"""Objectives and masks against slow loops that follow the papers letter by letter (MultiCSR Eq. 5-7)."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from multicsr.config.training import OBJECTIVE_NAMES
from multicsr.rows import CURATED
from multicsr.stages.train.objectives.losses import (
    OBJECTIVES,
    LossInputs,
    claif,
    clhaif,
    gist,
    masked_infonce,
    mean_over_widths,
    multicsr_reference,
    simcse_sup,
    simcse_unsup,
)
from multicsr.stages.train.objectives.mask import (
    keep_cells,
    keep_cells_reference,
    keep_same_gist,
    own_positive_cosines,
    similarity,
)

N, D, TAU, SIGMA = 7, 5, 0.05, 0.4


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def p_ND():
    return draw(N, D, seed=2)


@pytest.fixture
def p_CD():
    return draw(2 * N, D, seed=3)


@pytest.fixture
def inputs() -> LossInputs:
    """A whole batch with everything that any objective may read, but no mask."""
    anchor_ND = draw(N, D, seed=0).requires_grad_()
    return LossInputs(
        anchor_ND=anchor_ND,
        premise_GD=anchor_ND,
        positive_GD=draw(N, D, seed=1).requires_grad_(),
        temperature=TAU,
        negative_GD=draw(N, D, seed=4).requires_grad_(),
        score_N2=5 * torch.rand(N, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5)),
    )


def prepared(name: str, inputs: LossInputs, p_ND: torch.Tensor, p_CD: torch.Tensor) -> LossInputs:
    """What a worker gives the objective: its mask, no hard negatives where it embeds the premise alone."""
    objective = OBJECTIVES[name]
    if objective.keep is not None:
        similarity_NC = similarity(p_ND, p_CD)
        inputs = replace(inputs, keep_NC=objective.keep(similarity_NC, SIGMA, inputs.anchor_offset))
    if objective.compares_same:
        own = slice(inputs.anchor_offset, inputs.anchor_offset + len(p_ND))
        positive_ND, premise_GD = p_CD[:N][own], draw(N, D, seed=2)
        same = [similarity(p_ND, premise_GD), similarity(positive_ND, p_CD[:N])]
        threshold_N1 = own_positive_cosines(similarity_NC, inputs.anchor_offset)
        keep_same = keep_same_gist(threshold_N1, torch.cat(same, dim=1), inputs.anchor_offset)
        inputs = replace(inputs, keep_same_N2G=keep_same)
    return inputs if len(objective.sentences) == 3 else replace(inputs, negative_GD=None)


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


def plain_keep_reference(p_x, p_plus, p_minus, sigma: float) -> dict[tuple[int, int, str], bool]:
    """The authors' mask as a table: every cell above sigma goes, except the one that is the answer."""
    table = {}
    for i in range(len(p_x)):
        for k in range(len(p_x)):
            table[i, k, "+"] = True if k == i else cosine(p_x[i], p_plus[k]).item() <= sigma
            table[i, k, "-"] = cosine(p_x[i], p_minus[k]).item() <= sigma
    return table


def plain_infonce(h, h_plus, h_minus, tau: float, keep=None, weight=None) -> torch.Tensor:
    """Eq. 7, one anchor and one term at a time; `h_minus` may be None."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(h)):
        denominator = torch.zeros((), dtype=torch.float64)
        for k in range(len(h)):
            for sign, h_s in (("+", h_plus), ("-", h_minus)):
                if h_s is not None and (keep is None or keep[i, k, sign]):
                    denominator = denominator + torch.exp(cosine(h[i], h_s[k]) / tau)
        nll = -torch.log(torch.exp(cosine(h[i], h_plus[i]) / tau) / denominator)
        total = total + (nll if weight is None else weight[i] * nll)
    return total / len(h)


def plain_reference(h, h_plus, h_minus, tau: float, keep) -> torch.Tensor:
    """The public code as design.md and style.md 6.2 describe it, one cell at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(h)):
        cells = [(k, sign) for sign in "+-" for k in range(len(h))]
        logits = [
            cosine(h[i], (h_plus if sign == "+" else h_minus)[k]) / tau * (1 if keep[i, k, sign] else 0)
            for k, sign in cells
        ]
        everything = sum(torch.exp(logit) for logit in logits)
        for cell, logit in zip(cells, logits, strict=True):
            p = torch.exp(logit) / everything
            total = total - (torch.log(p) if cell == (i, "+") else torch.log(1 - p))
    return total / (len(h) * 2 * len(h))


def plain_claif(h, h_plus, h_minus, scores) -> torch.Tensor:
    """Mean squared error over pairs."""
    errors = []
    for i in range(len(h)):
        errors.append((cosine(h[i], h_plus[i]) - scores[i, 0] / 5) ** 2)
        errors.append((cosine(h[i], h_minus[i]) - scores[i, 1] / 5) ** 2)
    return sum(errors) / len(errors)


def plain_gist(h, h_plus, h_minus, p, tau: float) -> torch.Tensor:
    """GISTEmbed, one anchor and one candidate at a time; `p` are P's vectors of the three columns."""
    p_x, p_plus, p_minus = p
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(h)):
        threshold = cosine(p_x[i], p_plus[i]).item()
        denominator = torch.exp(cosine(h[i], h_plus[i]) / tau)
        for k in range(len(h)):
            candidates = [(h[i], h_minus[k], p_x[i], p_minus[k])]
            if k != i:
                candidates.append((h[i], h_plus[k], p_x[i], p_plus[k]))
                candidates.append((h[i], h[k], p_x[i], p_x[k]))
                candidates.append((h_plus[i], h_plus[k], p_plus[i], p_plus[k]))
            for left, right, p_left, p_right in candidates:
                if cosine(p_left, p_right).item() <= threshold:
                    denominator = denominator + torch.exp(cosine(left, right) / tau)
        total = total - torch.log(torch.exp(cosine(h[i], h_plus[i]) / tau) / denominator)
    return total / len(h)


def plain_claif_of_pairs(h, h_plus, h_minus, scores, smoothing: float, random_pairs: int) -> torch.Tensor:
    """CLAIF on a list of pairs with labels, as its code makes one: smoothed scores, and zeros."""
    pairs = []
    for i in range(len(h)):
        for side, h_s in enumerate((h_plus, h_minus)):
            pairs.append((h[i], h_s[i], scores[i, side] / 5 * (1 - smoothing) + smoothing / 3 * 1.5))
        for number in range(random_pairs):
            h_s = h_minus if number % 2 else h_plus
            pairs.append((h[i], h_s[(i + number + 1) % len(h)], 0.0))
    return sum((cosine(left, right) - label) ** 2 for left, right, label in pairs) / len(pairs)


def plain(name: str, inputs: LossInputs, p_ND: torch.Tensor, p_CD: torch.Tensor) -> torch.Tensor:
    """The objective of a whole batch."""
    h, h_plus, h_minus = inputs.anchor_ND, inputs.positive_GD, inputs.negative_GD
    p = (p_ND, p_CD[:N], p_CD[N:])
    match name:
        case "masked_infonce":
            return plain_infonce(h, h_plus, h_minus, TAU, keep=plain_keep(*p, SIGMA))
        case "multicsr_reference":
            return plain_reference(h, h_plus, h_minus, TAU, plain_keep_reference(*p, SIGMA))
        case "simcse_sup":
            return plain_infonce(h, h_plus, h_minus, TAU)
        case "simcse_unsup":
            return plain_infonce(h, h_plus, None, TAU)
        case "gist":
            return plain_gist(h, h_plus, h_minus, p, TAU)
        case "claif":
            return plain_claif(h, h_plus, h_minus, inputs.score_N2)
        case "clhaif":
            return plain_infonce(h, h_plus, h_minus, TAU, weight=inputs.score_N2[:, 0] / 5)
    raise AssertionError(f"no slow version of {name}")


def gradients(loss: torch.Tensor, inputs: LossInputs) -> list[torch.Tensor]:
    """With respect to all embeddings; zeros where an objective does not use them."""
    leaves = (inputs.anchor_ND, inputs.positive_GD, inputs.negative_GD)
    leaves = [leaf for leaf in leaves if leaf is not None]
    return list(torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True))


def assert_same(loss: torch.Tensor, expected: torch.Tensor, inputs: LossInputs) -> None:
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(loss, inputs), gradients(expected, inputs), rtol=1e-10, atol=1e-12)


def test_every_objective_of_the_configuration_is_there():
    assert set(OBJECTIVES) == {*OBJECTIVE_NAMES.builtin}
    for objective in OBJECTIVES.values():
        assert set(objective.sentences) <= set(CURATED.names)


@pytest.mark.parametrize(
    ("keep", "plain_table"), [(keep_cells, plain_keep), (keep_cells_reference, plain_keep_reference)]
)
def test_mask_is_its_table(p_ND, p_CD, keep, plain_table):
    keep_NC = keep(similarity(p_ND, p_CD), SIGMA)
    table = plain_table(p_ND, p_CD[:N], p_CD[N:], SIGMA)
    for i in range(N):
        for k in range(N):
            assert keep_NC[i, k].item() == table[i, k, "+"]
            assert keep_NC[i, N + k].item() == table[i, k, "-"]
    assert 0 < (~keep_NC).sum() < N * N, "the example must mask something"


def test_own_positive_and_own_hard_negative_are_never_masked():
    same_ND = torch.ones(N, D)
    keep_NC = keep_cells(similarity(same_ND, torch.ones(2 * N, D)), 0.1)
    assert torch.equal(keep_NC, torch.eye(N, dtype=torch.bool).repeat(1, 2))


def test_the_reference_masks_the_own_hard_negative_too():
    keep_NC = keep_cells_reference(similarity(torch.ones(3, D), torch.ones(2 * N, D)), 0.1, anchor_offset=2)
    assert keep_NC.nonzero().tolist() == [[0, 2], [1, 3], [2, 4]], "nothing but own positives"


def test_a_cell_exactly_at_sigma_is_masked():
    keep_NC = keep_cells(torch.tensor([[0.5, 0.25, 0.1, 0.1], [0.2499, 0.3, 0.1, 0.25]]), 0.25)
    assert keep_NC.tolist() == [[True, False, True, True], [True, True, True, True]]


def test_a_cell_exactly_at_sigma_stays_in_the_reference():
    keep_NC = keep_cells_reference(torch.tensor([[0.5, 0.25, 0.1, 0.26], [0.2501, 0.3, 0.1, 0.25]]), 0.25)
    assert keep_NC.tolist() == [[True, True, True, False], [False, True, True, True]]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradients_equal_a_slow_loop(inputs, p_ND, p_CD, name):
    inputs = prepared(name, inputs, p_ND, p_CD)
    assert_same(OBJECTIVES[name].loss(inputs), plain(name, inputs, p_ND, p_CD), inputs)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("sizes", [[7], [1] * 7, [3, 4], [1, 4, 2]])
def test_slices_of_the_batch_add_up_to_the_whole(inputs, p_ND, p_CD, name, sizes):
    """A worker's anchors against all candidates, with its offset: same mask, loss and gradient."""
    whole = prepared(name, inputs, p_ND, p_CD)
    shares, start = [], 0
    for size in sizes:
        own = slice(start, start + size)
        part = replace(
            inputs, anchor_ND=inputs.anchor_ND[own], score_N2=inputs.score_N2[own], anchor_offset=start
        )
        part = prepared(name, part, p_ND[own], p_CD)
        assert part.keep_NC is None or torch.equal(part.keep_NC, whole.keep_NC[own])
        shares.append(OBJECTIVES[name].loss(part))
        start += size
    assert_same(torch.stack(shares).sum(), OBJECTIVES[name].loss(whole), whole)


def test_without_a_mask_it_is_supervised_simcse(inputs):
    # SimCSE's words: cosines of z1 with z2 beside those of z1 with z3, cross entropy on the diagonal.
    z1, z2, z3 = inputs.anchor_ND, inputs.positive_GD, inputs.negative_GD
    cos = torch.nn.CosineSimilarity(dim=-1)
    logits = torch.cat([cos(z1[:, None], z2[None]), cos(z1[:, None], z3[None])], dim=1) / TAU
    expected = torch.nn.CrossEntropyLoss()(logits, torch.arange(N))
    assert_same(masked_infonce(inputs), expected, inputs)
    assert_same(simcse_sup(inputs), expected, inputs)
    everything = replace(inputs, keep_NC=torch.ones(N, 2 * N, dtype=torch.bool))
    assert_same(masked_infonce(everything), expected, everything)


@pytest.mark.parametrize("other", [0.0, 1e6, -3.0])
def test_a_masked_term_has_no_influence(inputs, other):
    """One anchor of row 2; candidates 0 (a positive) and N + 4 (a hard negative) are masked for it."""
    keep_1C = torch.ones(1, 2 * N, dtype=torch.bool)
    keep_1C[0, [0, N + 4]] = False
    anchor_1D = inputs.anchor_ND[2:3].detach().requires_grad_()
    before = replace(inputs, anchor_ND=anchor_1D, anchor_offset=2, keep_NC=keep_1C)
    positive_GD, negative_GD = inputs.positive_GD.detach().clone(), inputs.negative_GD.detach().clone()
    positive_GD[0] = negative_GD[4] = other
    after = replace(
        before, positive_GD=positive_GD.requires_grad_(), negative_GD=negative_GD.requires_grad_()
    )
    loss = masked_infonce(after)
    assert loss.item() == masked_infonce(before).item()
    gradient = gradients(loss, after)
    assert all(map(torch.equal, gradients(masked_infonce(before), before), gradient))
    assert torch.count_nonzero(gradient[1][0]) == torch.count_nonzero(gradient[2][4]) == 0
    # The same without those candidates: they are not even in the denominator.
    rest = [c for c in range(2 * N) if keep_1C[0, c]]
    logits = F.cosine_similarity(anchor_1D, torch.cat([positive_GD, negative_GD])[rest]) / TAU
    expected = -F.log_softmax(logits, dim=0)[rest.index(2)].item() / N
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["masked_infonce", "simcse_sup", "clhaif", "claif"])
def test_finite_at_similarity_1(name, dtype):
    """The authors' binary form gives NaN here: positive at 1, every negative at -1, and the reverse."""
    for positive, negative in ((1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)):
        inputs = LossInputs(
            torch.ones(N, D, dtype=dtype, requires_grad=True),
            torch.full((N, D), positive, dtype=dtype, requires_grad=True),
            TAU,
            negative_GD=torch.full((N, D), negative, dtype=dtype, requires_grad=True),
            keep_NC=torch.eye(N, dtype=torch.bool).repeat(1, 2) if name == "masked_infonce" else None,
            score_N2=torch.tensor([[5.0, 0.0]], dtype=dtype).expand(N, 2),
        )
        loss = OBJECTIVES[name].loss(inputs)
        assert math.isfinite(loss.item())
        assert all(g.isfinite().all() for g in gradients(loss, inputs))


def at_angles(*cosines: float) -> torch.Tensor:
    """Unit vectors [len(cosines), 2] with these cosines to (1, 0)."""
    return torch.tensor([[c, math.sqrt(1 - c * c)] for c in cosines], dtype=torch.float64)


def test_a_masked_cell_of_the_reference_keeps_a_share_of_the_softmax():
    """style.md 6.2: with logits (-1, masked 19, -2) the masked cell still takes two thirds."""
    inputs = LossInputs(
        at_angles(1.0),
        at_angles(-0.05, 0.95),
        TAU,
        negative_GD=at_angles(-0.1, -1.0),
        keep_NC=torch.tensor([[True, False, True, True]]),
    )
    weight = [math.exp(logit) for logit in (-1, 0, -2, -20)]
    p = [w / sum(weight) for w in weight]
    assert p[1] == pytest.approx(0.665, abs=1e-3)
    expected = -(math.log(p[0]) + sum(math.log(1 - other) for other in p[1:])) / (2 * 4)
    assert multicsr_reference(inputs).item() == pytest.approx(expected, abs=1e-12)
    # Removed, as Eq. 7 has it, the cell leaves the positive with almost three quarters instead of a quarter.
    assert math.exp(-2 * masked_infonce(inputs).item()) == pytest.approx(p[0] / (1 - p[1]), abs=1e-12)


def test_the_reference_is_nan_on_a_perfectly_separated_batch_in_float32():
    """p of the positive rounds to 1: 0 * log(1 - 1). float64 has room for what is left."""
    for dtype, survives in ((torch.float32, False), (torch.float64, True)):
        own_ND = torch.eye(N, dtype=dtype)
        inputs = LossInputs(own_ND.clone().requires_grad_(), own_ND, TAU, negative_GD=-own_ND)
        loss = multicsr_reference(inputs)
        (gradient_ND,) = torch.autograd.grad(loss, inputs.anchor_ND)
        assert loss.isfinite().item() is gradient_ND.isfinite().all().item() is survives
        assert loss.isnan().item() is not survives
        assert masked_infonce(inputs).isfinite()


def test_the_reference_is_infinite_where_another_row_s_hypothesis_is_certain():
    """p of a wrong candidate rounds to 1: -log(1 - 1)."""
    own_ND = torch.eye(N)
    inputs = LossInputs(own_ND, own_ND.roll(1, dims=0), TAU, negative_GD=-own_ND)
    assert multicsr_reference(inputs).item() == math.inf
    assert masked_infonce(inputs).item() == pytest.approx(20, abs=1e-4)


def test_unsupervised_simcse_is_cross_entropy_of_a_batch_with_itself(inputs):
    inputs = replace(inputs, negative_GD=None)
    cos = torch.nn.CosineSimilarity(dim=-1)
    logits = cos(inputs.anchor_ND[:, None], inputs.positive_GD[None]) / TAU
    assert_same(simcse_unsup(inputs), torch.nn.CrossEntropyLoss()(logits, torch.arange(N)), inputs)


def test_clhaif_with_full_marks_is_supervised_simcse(inputs):
    inputs = replace(inputs, score_N2=torch.tensor([[5.0, 1.0]]).expand(N, 2))
    assert_same(clhaif(inputs), simcse_sup(inputs), inputs)


def test_claif_is_zero_where_cosines_are_the_scores():
    inputs = LossInputs(
        at_angles(1.0, 1.0),
        at_angles(0.8, 1.0),
        TAU,
        negative_GD=at_angles(0.2, 0.0),
        score_N2=torch.tensor([[4.0, 1.0], [5.0, 0.0]], dtype=torch.float64),
    )
    assert claif(inputs).item() == pytest.approx(0, abs=1e-30)


@pytest.mark.parametrize("loss", [claif, clhaif])
def test_missing_scores_are_named(inputs, loss):
    with pytest.raises(ValueError, match="needs score_N2"):
        loss(replace(inputs, score_N2=None))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_autocast_and_half_precision_embeddings_do_not_blur_the_loss(inputs, p_ND, p_CD, name):
    """Encoders that compute in bfloat16 hand over such vectors; what follows is float32."""
    anchor_ND, positive_GD, negative_GD = (
        tensor.detach().bfloat16() for tensor in (inputs.anchor_ND, inputs.positive_GD, inputs.negative_GD)
    )
    half = replace(
        inputs,
        anchor_ND=anchor_ND,
        positive_GD=positive_GD,
        negative_GD=negative_GD,
        premise_GD=anchor_ND,
    )
    exact = replace(
        inputs,
        anchor_ND=anchor_ND.double(),
        positive_GD=positive_GD.double(),
        negative_GD=negative_GD.double(),
        premise_GD=anchor_ND.double(),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = OBJECTIVES[name].loss(prepared(name, half, p_ND, p_CD))
    expected = OBJECTIVES[name].loss(prepared(name, exact, p_ND, p_CD))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)


def test_simcse_s_public_gathering_is_the_full_gradient_divided_by_the_workers():
    """Why there is no setting for it: anchors and candidates of others without gradient, the whole batch's
    loss on every worker, gradients averaged (Gao et al. 2021, models/resolve.py)."""
    draw = torch.Generator().manual_seed(5)
    weight = torch.randn(6, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    input_NS6 = torch.randn(N, 3, 6, generator=draw, dtype=torch.float64)

    def loss(embedding_NSD: torch.Tensor) -> torch.Tensor:
        h, h_plus, h_minus = embedding_NSD.unbind(dim=1)
        return plain_infonce(h, h_plus, h_minus, TAU)

    [full] = torch.autograd.grad(loss(input_NS6 @ weight), weight)
    for workers in (2, 3):
        averaged = torch.zeros_like(full)
        for worker in range(workers):
            own = slice(worker * N // workers, (worker + 1) * N // workers)
            gathered_NSD = (input_NS6 @ weight).detach()
            gathered_NSD[own] = input_NS6[own] @ weight
            [gradient] = torch.autograd.grad(loss(gathered_NSD), weight)
            averaged += gradient / workers
        torch.testing.assert_close(averaged, full / workers, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_at_sigma_1_equal_texts_are_masked_and_no_others(seed):
    """Though their vectors differ in the last bit."""
    draw = torch.Generator().manual_seed(seed)
    vector_ND = torch.randn(200, 16, generator=draw)
    noisy_ND = torch.nextafter(vector_ND, torch.tensor(torch.inf))
    anchor_ND, candidate_CD = vector_ND, torch.cat([noisy_ND.roll(1, 0), -noisy_ND])
    equal_NC = torch.zeros(200, 400, dtype=torch.bool)
    equal_NC[torch.arange(200), (torch.arange(200) + 1) % 200] = True
    bare_NC = keep_cells(similarity(anchor_ND, candidate_CD), 1.0)
    assert (bare_NC[equal_NC]).any(), "the last bits would decide"
    assert torch.equal(~keep_cells(similarity(anchor_ND, candidate_CD, equal_NC), 1.0), equal_NC)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_over_widths_is_the_mean_of_the_losses_of_shortened_vectors(name, inputs, p_ND, p_CD):
    objective, inputs = OBJECTIVES[name], prepared(name, inputs, p_ND, p_CD)
    expected = 0.0
    for width in (D, 4, 2):
        negative_GD = None if inputs.negative_GD is None else inputs.negative_GD[:, :width]
        expected += objective.loss(
            LossInputs(
                inputs.anchor_ND[:, :width],
                inputs.positive_GD[:, :width],
                TAU,
                negative_GD=negative_GD,
                keep_NC=inputs.keep_NC,
                score_N2=inputs.score_N2,
                premise_GD=inputs.premise_GD[:, :width],
                keep_same_N2G=inputs.keep_same_N2G,
            )
        )
    torch.testing.assert_close(mean_over_widths(objective.loss, inputs, [4, 2]), expected / 3)
    assert mean_over_widths(objective.loss, inputs, []) == objective.loss(inputs)


# Labelled rows: weights, and rows without a hard negative

WEIGHT_G = torch.tensor([1.0, 0.25, 3.0, 1.0, 0.5, 2.0, 1.0])
HAS_NEGATIVE = [True, False, True, True, False, False, True]


def with_labelled_rows(inputs: LossInputs, keep_NC: torch.Tensor | None) -> LossInputs:
    """The batch with weights, and without the hard negatives that rows have not."""
    column = [*range(N), *(N + k for k in range(N) if HAS_NEGATIVE[k])]
    return replace(
        inputs,
        negative_GD=inputs.negative_GD[HAS_NEGATIVE],
        keep_NC=None if keep_NC is None else keep_NC[:, column],
        weight_G=WEIGHT_G,
    )


def plain_labelled(inputs: LossInputs, keep) -> torch.Tensor:
    """The weighted mean of Eq. 7 over anchors; a hard negative that is missing is in no denominator."""
    total, weights = torch.zeros((), dtype=torch.float64), 0.0
    for i in range(N):
        own = torch.exp(cosine(inputs.anchor_ND[i], inputs.positive_GD[i]) / TAU)
        denominator = torch.zeros((), dtype=torch.float64)
        for k in range(N):
            for sign, h_s in (("+", inputs.positive_GD), ("-", inputs.negative_GD)):
                if (sign == "+" or HAS_NEGATIVE[k]) and keep[i, k, sign]:
                    denominator = denominator + torch.exp(cosine(inputs.anchor_ND[i], h_s[k]) / TAU)
        total = total - float(WEIGHT_G[i]) * torch.log(own / denominator)
        weights += float(WEIGHT_G[i])
    return total / weights


@pytest.mark.parametrize("name", ["masked_infonce", "simcse_sup"])
def test_weights_and_missing_negatives_equal_a_slow_loop(inputs, p_ND, p_CD, name):
    everything = dict.fromkeys(((i, k, sign) for i in range(N) for k in range(N) for sign in "+-"), True)
    table = plain_keep(p_ND, p_CD[:N], p_CD[N:], SIGMA) if name == "masked_infonce" else everything
    keep_NC = keep_cells(similarity(p_ND, p_CD), SIGMA) if name == "masked_infonce" else None
    labelled = with_labelled_rows(inputs, keep_NC)
    assert_same(OBJECTIVES[name].loss(labelled), plain_labelled(inputs, table), inputs)


def test_the_reference_takes_the_mean_over_the_cells_that_exist(inputs, p_ND, p_CD):
    table = plain_keep_reference(p_ND, p_CD[:N], p_CD[N:], SIGMA)
    cells = [(k, sign) for sign in "+-" for k in range(N) if sign == "+" or HAS_NEGATIVE[k]]
    total = torch.zeros((), dtype=torch.float64)
    for i in range(N):
        logits = [
            cosine(inputs.anchor_ND[i], (inputs.positive_GD if sign == "+" else inputs.negative_GD)[k])
            / TAU
            * (1 if table[i, k, sign] else 0)
            for k, sign in cells
        ]
        p = [torch.exp(logit) / sum(map(torch.exp, logits)) for logit in logits]
        terms = [
            -torch.log(each) if cell == (i, "+") else -torch.log(1 - each)
            for cell, each in zip(cells, p, strict=True)
        ]
        total = total + float(WEIGHT_G[i]) * sum(terms) / len(cells)
    expected = total / float(WEIGHT_G.sum())
    labelled = with_labelled_rows(inputs, keep_cells_reference(similarity(p_ND, p_CD), SIGMA))
    assert_same(multicsr_reference(labelled), expected, inputs)


@pytest.mark.parametrize("sizes", [[7], [1] * 7, [3, 4], [1, 4, 2]])
def test_weighted_shares_add_up_to_the_whole(inputs, p_ND, p_CD, sizes):
    keep_NC = keep_cells(similarity(p_ND, p_CD), SIGMA)
    whole = with_labelled_rows(inputs, keep_NC)
    shares, start = [], 0
    for size in sizes:
        own = slice(start, start + size)
        part = replace(
            whole, anchor_ND=inputs.anchor_ND[own], keep_NC=whole.keep_NC[own], anchor_offset=start
        )
        shares.append(masked_infonce(part))
        start += size
    assert_same(sum(shares), masked_infonce(whole), inputs)


def test_equal_weights_are_the_plain_mean(inputs):
    for weight in (1.0, 0.3):
        weighted = replace(inputs, weight_G=torch.full((N,), weight))
        assert masked_infonce(weighted).item() == pytest.approx(masked_infonce(inputs).item(), rel=1e-6)


def test_gist_is_the_loss_of_sentence_transformers(inputs, p_ND, p_CD, monkeypatch):
    """The library's own class, given these embeddings in place of models."""
    from sentence_transformers.sentence_transformer.losses import gist_embed

    monkeypatch.setattr(gist_embed, "embed_columns", lambda columns, features: columns)
    theirs = gist_embed.GISTEmbedLoss.__new__(gist_embed.GISTEmbedLoss)
    torch.nn.Module.__init__(theirs)
    theirs.similarity_fct, theirs.cross_entropy_loss = (
        torch.nn.CosineSimilarity(dim=-1),
        torch.nn.CrossEntropyLoss(),
    )
    theirs.temperature, theirs.margin_strategy, theirs.margin = TAU, "absolute", 0.0
    theirs.contrast_anchors = theirs.contrast_positives = True
    theirs.must_retokenize = theirs.gather_across_devices = False
    theirs.model = [inputs.anchor_ND, inputs.positive_GD, inputs.negative_GD]
    theirs.guide = [p_ND, p_CD[:N], p_CD[N:]]
    ours = prepared("gist", inputs, p_ND, p_CD)
    assert (~ours.keep_NC).any()
    assert (~ours.keep_same_N2G).sum() > 2 * N
    assert_same(gist(ours), theirs([{}] * 3, None), inputs)


def test_gist_removes_the_own_row_even_where_p_finds_the_positive_equal():
    keep = keep_same_gist(torch.ones(3, 1), torch.ones(3, 6))
    assert (~keep).nonzero().tolist() == [[i, j] for i in range(3) for j in (i, i + 3)]


@pytest.mark.parametrize(("smoothing", "random_pairs"), [(0.2, 0), (0.0, 1), (0.2, 2), (0.5, 5)])
def test_claif_with_smoothed_labels_and_random_pairs_equals_a_slow_loop(inputs, smoothing, random_pairs):
    inputs = replace(inputs, label_smoothing=smoothing, random_pairs=random_pairs)
    h = inputs.anchor_ND, inputs.positive_GD, inputs.negative_GD
    expected = plain_claif_of_pairs(*h, inputs.score_N2, smoothing, random_pairs)
    assert_same(claif(inputs), expected, inputs)
    shares = [
        claif(
            replace(
                inputs,
                anchor_ND=inputs.anchor_ND[own],
                score_N2=inputs.score_N2[own],
                anchor_offset=own.start,
            )
        )
        for own in (slice(0, 3), slice(3, 4), slice(4, N))
    ]
    assert_same(torch.stack(shares).sum(), expected, inputs)
