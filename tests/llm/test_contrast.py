"""The rule of MultiCSR Eq. 2: combination, greedy choice, seeded draws, and when a choice is certain."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from multicsr.llm.contrast import choose_drawn, choose_greedy, combine, uniform
from tests.support.decoding import draw

INF = float("inf")


def test_the_noisy_logits_are_subtracted_with_their_weight_per_row():
    main, noisy = torch.randn(3, 5), torch.randn(3, 5)
    found = combine(main, noisy, torch.tensor([0.0, 0.3, 0.4]))
    assert torch.equal(found[0], main[0])
    assert torch.allclose(found[1], main[1] - 0.3 * noisy[1])
    assert torch.allclose(found[2], main[2] - 0.4 * noisy[2])


def test_excluded_tokens_never_give_nan_or_certainty():
    main = torch.tensor([[1.0, -INF, -INF, 2.0]])
    noisy = torch.tensor([[1.0, -INF, 3.0, -INF]])
    for omega in (0.0, 0.5):
        found = combine(main, noisy, torch.tensor([omega]))
        assert found.tolist() == [[1 - omega, -INF, -INF, 2.0]]


def test_draws_are_a_function_of_the_key_and_even():
    numbers = [uniform(1, f"row{i}", "entailment", i % 7) for i in range(4000)]
    assert numbers == [uniform(1, f"row{i}", "entailment", i % 7) for i in range(4000)]
    assert len(set(numbers)) == 4000
    assert all(0 <= number < 1 for number in numbers)
    assert chisquare(np.histogram(numbers, 20, (0, 1))[0]).pvalue > 0.01
    other = {uniform(2, "row0", "entailment", 0), uniform(1, "row0", "contradiction", 0)}
    assert not other & {uniform(1, "row0", "entailment", 0)}


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.0, 0.7)])
def test_draws_follow_the_exact_distribution(temperature, top_p):
    logits = torch.tensor([0.5, -1.0, 2.0, 1.7, 0.0, -INF, 1.0, 0.9])
    numbers = torch.tensor([uniform(3, str(i), "entailment", 0) for i in range(4000)], dtype=torch.float64)
    tokens, _ = choose_drawn(logits.expand(4000, -1), numbers, temperature, top_p, tie_gap=2e-5)
    p = torch.softmax(logits.double() / temperature, -1).numpy()
    order = np.argsort(-p)
    kept = order[: 1 + np.searchsorted(np.cumsum(p[order]), top_p)] if top_p < 1 else order[:-1]
    counts = np.bincount(tokens.numpy(), minlength=8)
    assert counts[kept].sum() == 4000
    assert chisquare(counts[kept], 4000 * p[kept] / p[kept].sum()).pvalue > 0.01


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.8, 0.9), (1.5, 0.3)])
def test_draws_equal_the_reference(temperature, top_p):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 50, generator=generator) * 3
    numbers = torch.rand(200, generator=generator, dtype=torch.float64)
    tokens, _ = choose_drawn(logits, numbers, temperature, top_p, tie_gap=2e-5)
    expected = [
        draw(row.double().numpy(), float(number), temperature, top_p)
        for row, number in zip(logits, numbers, strict=True)
    ]
    assert tokens.tolist() == expected


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 1.0), (0.8, 0.9), (1.0, 0.5)])
def test_no_shift_below_half_the_gap_changes_a_certain_choice(temperature, top_p):
    tie_gap = 0.05
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2000, 12, generator=generator) * 2
    numbers = torch.rand(2000, generator=generator, dtype=torch.float64)

    def choose(logits):
        if temperature == 0:
            return choose_greedy(logits, tie_gap)
        return choose_drawn(logits, numbers, temperature, top_p, tie_gap)

    tokens, certain = choose(logits)
    changed = torch.zeros(2000, dtype=torch.bool)
    for _ in range(50):
        sign = torch.randint(0, 2, logits.shape, generator=generator) * 2 - 1
        shifted, _ = choose(logits + sign * tie_gap * 0.499)
        changed |= shifted != tokens
    assert not (changed & certain).any()
    assert changed.sum() > 20
    assert certain.float().mean() > 0.6


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_draw_between_two_tokens_is_uncertain_only_if_some_shift_changes_it(temperature):
    tie_gap = 0.05
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    numbers = torch.rand(4000, generator=generator, dtype=torch.float64)
    tokens, certain = choose_drawn(logits, numbers, temperature, 1.0, tie_gap)
    shift = torch.tensor([tie_gap / 2, -tie_gap / 2], dtype=torch.float64)
    up, down = (choose_drawn(logits + way * shift, numbers, temperature, 1.0, 0.0)[0] for way in (1, -1))
    assert torch.equal(certain, (up == tokens) & (down == tokens))
    assert 10 < (~certain).sum() < 200


def test_the_edge_of_the_nucleus_matters_only_next_to_an_edge_of_the_draw():
    """The nucleus of 1,000 tokens may end on either of several tokens, and few draws depend on it."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 1000, generator=generator).expand(2000, -1)
    numbers = torch.rand(2000, generator=generator, dtype=torch.float64)
    _, certain = choose_drawn(logits, numbers, 1.0, 0.95, tie_gap=2e-5)
    assert (~certain).float().mean() < 0.01


def test_a_row_that_is_not_numbers_is_never_certain():
    nan = torch.full((1, 4), float("nan"))
    assert not choose_greedy(nan, 0.0)[1]
    assert not choose_drawn(nan, torch.tensor([0.5], dtype=torch.float64), 1.0, 0.9, 0.0)[1]
