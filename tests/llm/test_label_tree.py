"""The tree of labels against sums over all texts of a small alphabet of tokens."""

import itertools

import numpy as np
import pytest

from multicsr.errors import ConfigError
from multicsr.llm.label_tree import LabelTree

BLANK = 9
LABELS = ["1", "10", "100", "2"]
SPELLINGS = [
    [(1,), (BLANK, 1)],
    [(1, 0), (BLANK, 1, 0)],
    [(1, 0, 0), (7,)],
    [(2, 3, 4), (2, 3, 4)],
]
NUM_TOKENS = 10


def is_blank(token):
    return token == BLANK


def log_p_after(prefix):
    """Log-probabilities of all tokens after a prefix, different for every prefix."""
    logits = np.random.default_rng([1, *prefix]).normal(size=NUM_TOKENS) * 2
    return logits - np.log(np.exp(logits).sum())


def read(tree):
    return np.array([log_p_after(path[:-1])[path[-1]] for path in tree.paths])


def test_probabilities_are_sums_over_all_texts():
    tree = LabelTree(LABELS, SPELLINGS, is_blank)
    mass = dict.fromkeys(LABELS, 0.0)
    meaning = {(1,): "1", (1, 0): "10", (1, 0, 0): "100", (7,): "100", (2,): "2"}
    meaning |= {(BLANK, 1): "1", (BLANK, 1, 0): "10"}
    for text in itertools.product(range(NUM_TOKENS), repeat=3):
        p = np.exp(sum(log_p_after(text[:i])[text[i]] for i in range(3)))
        written = [text[: i + 1] for i in range(3) if text[: i + 1] in meaning]
        if written:
            mass[meaning[written[-1]]] += p  # the longest label that the text begins with
    expected = np.array([mass[label] for label in LABELS])
    assert tree.probabilities(read(tree)) == pytest.approx(expected / expected.sum(), rel=1e-9)


def test_each_position_is_read_once():
    tree = LabelTree(LABELS, SPELLINGS, is_blank)
    assert tree.prefixes == [(), (1,), (BLANK,), (1, 0), (BLANK, 1)]
    assert [path[:-1] for path in tree.paths] == sorted(
        (path[:-1] for path in tree.paths), key=tree.prefixes.index
    )
    assert [token for prefix in tree.prefixes for token in tree.tokens_after(prefix)] == [
        path[-1] for path in tree.paths
    ]
    assert len(set(tree.paths)) == len(tree.paths)
    assert tree.num_tokens == 3


def test_a_spelling_ends_where_no_other_label_shares_it_but_not_at_a_blank():
    assert LabelTree(["a", "b"], [[(1, 2, 3)], [(1, 4, 5)]], is_blank).paths == [(1,), (1, 2), (1, 4)]
    assert LabelTree(["a", "b"], [[(1, 2)], [(3, 4)]], is_blank).paths == [(1,), (3,)]
    assert LabelTree(["0", "1"], [[(BLANK, 2)], [(3,)]], is_blank).paths == [(3,), (9,), (9, 2)]


def test_a_certain_token_gives_certainty_and_no_token_nothing():
    tree = LabelTree(LABELS, SPELLINGS, is_blank)
    log_p = {path: 0.0 if path in ((1,), (1, 0)) else -np.inf for path in tree.paths}
    with np.errstate(all="raise"):
        found = tree.probabilities(np.array([log_p[path] for path in tree.paths]))
    assert found.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_numbers_that_are_none_are_passed_on(value):
    tree = LabelTree(LABELS, SPELLINGS, is_blank)
    assert np.isnan(tree.probabilities(np.full(len(tree.paths), value))).all()


def test_no_noise_within_the_bound_moves_a_weight_further():
    tree = LabelTree(LABELS, SPELLINGS, is_blank)
    noise, generator, largest = 0.01, np.random.default_rng(3), 0.0
    exact = np.log(tree.probabilities(read(tree)))
    for _ in range(300):
        logits = {
            prefix: log_p_after(prefix) + generator.choice([-noise, noise], size=NUM_TOKENS)
            for prefix in tree.prefixes
        }
        log_p = {prefix: row - np.log(np.exp(row).sum()) for prefix, row in logits.items()}
        moved = np.log(tree.probabilities(np.array([log_p[p[:-1]][p[-1]] for p in tree.paths])))
        apart = moved - exact
        largest = max(largest, apart.max() - apart.min())
    assert tree.noise_factor == 5
    assert noise < largest <= 2 * tree.noise_factor * noise
    assert LabelTree(["a", "b"], [[(1,), (2,)], [(3,)]], is_blank).noise_factor == 1


def test_labels_that_cannot_be_told_apart_are_an_error():
    with pytest.raises(ConfigError, match=r"generate\.prompts: .* 'a' and 'A' with the same tokens; change"):
        LabelTree(["a", "b", "A"], [[(1,)], [(2,)], [(1,)]], is_blank)
    with pytest.raises(
        ConfigError, match=r"generate\.prompts: .* cannot write the score label 'b'; .*stated"
    ):
        LabelTree(["a", "b"], [[(1,)], []], is_blank)
