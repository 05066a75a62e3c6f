"""Lexical bias against slow versions, and on corpora with and without a bias."""

import random
from math import log, sqrt

import numpy as np
import pyarrow as pa
import pytest

from multicsr.rows import row_id
from multicsr.stages.report.lexical_bias import (
    HypothesisSample,
    LexicalBias,
    auc,
    lexical_bias,
    log_odds,
    words_of,
    z_scores,
)

NOUNS = [f"noun{index}" for index in range(40)]
Rows = list[tuple[str, str, str]]


def corpus(num_rows: int, negation: str = "") -> Rows:
    """Rows (id, entailment, contradiction) whose sides have the same words, but for the negation."""
    draw = random.Random(3)

    def hypothesis(index: int, word: str) -> str:
        return f"{' '.join(draw.choices(NOUNS, k=5))} {word if index % 20 else ''}."

    return [
        (row_id(str(index), "en"), hypothesis(index, ""), hypothesis(index, negation))
        for index in range(num_rows)
    ]


def measured(rows: Rows) -> LexicalBias:
    bias = lexical_bias(*(list(column) for column in zip(*rows, strict=True)))
    assert bias is not None
    return bias


def slow_auc(low: list[float], high: list[float]) -> float:
    pairs = [(b > a) + (b == a) / 2 for a in low for b in high]
    return sum(pairs) / len(pairs)


def slow_log_odds(entailments: int, contradictions: int, rows: int) -> float:
    e, c = entailments + 1, contradictions + 1
    return log(c / (rows + 2 - c)) - log(e / (rows + 2 - e))


def slow_z(entailments: int, contradictions: int, rows: int) -> float:
    e, c = (entailments + 1) / (rows + 2), (contradictions + 1) / (rows + 2)
    pooled = (e + c) / 2
    return (c - e) / sqrt(pooled * (1 - pooled) * (1 / (rows + 2) + 1 / (rows + 2)))


def slow_bias(rows: Rows) -> float:
    """Mean of the AUCs of both halves, row by row."""
    areas = []
    for trained in (0, 1):
        train = [row for row in rows if int(row[0], 16) % 2 == trained]
        tested = [row for row in rows if int(row[0], 16) % 2 != trained]
        weights = {}
        for word in {word for row in train for text in row[1:] for word in words_of(text)}:
            e, c = (sum(word in words_of(row[side]) for row in train) for side in (1, 2))
            weights[word] = slow_log_odds(e, c, len(train))
        values = [
            [
                round(sum(weights[word] for word in words_of(row[side]) if word in weights), 9)
                for row in tested
            ]
            for side in (1, 2)
        ]
        areas.append(slow_auc(*values))
    return sum(areas) / 2


def test_auc_equals_that_of_all_pairs():
    draw = np.random.default_rng(0)
    for size in (1, 2, 7, 60):
        low_N, high_M = draw.integers(0, 9, size) / 4, draw.integers(2, 11, size + 3) / 4
        assert auc(low_N, high_M) == pytest.approx(slow_auc(low_N.tolist(), high_M.tolist()), abs=1e-12)


def test_log_odds_and_z_scores_are_those_of_the_formulas():
    counts_2V = np.random.default_rng(1).integers(0, 7, (2, 50))
    pairs = counts_2V.T.tolist()
    ratio_V, z_V = log_odds(counts_2V, 6), z_scores(counts_2V, 6)
    assert np.allclose(ratio_V, [slow_log_odds(e, c, 6) for e, c in pairs], rtol=1e-12, atol=1e-15)
    assert np.allclose(z_V, [slow_z(e, c, 6) for e, c in pairs], rtol=1e-12, atol=1e-15)
    same_V = counts_2V[0] == counts_2V[1]
    assert same_V.any()
    assert not ratio_V[same_V].any()
    assert not z_V[same_V].any()


def test_a_word_of_one_side_alone_ranks_above_frequent_words():
    """All of 20,000 contradictions and no entailment; then half and some; then 2,000 and 1,000."""
    z_V = z_scores(np.array([[0, 500, 1000], [20_000, 10_000, 2000]]), 20_000)
    assert z_V.tolist() == sorted(z_V.tolist(), reverse=True)


@pytest.mark.parametrize("negation", ["", "not", NOUNS[0]])
def test_bias_equals_the_slow_version(negation):
    rows = corpus(120, negation)
    assert measured(rows).auc == pytest.approx(slow_bias(rows), abs=1e-9)


def test_a_negation_word_is_found():
    bias = measured(corpus(400, "Not"))
    assert bias.auc > 0.95
    assert bias.is_strong
    first = bias.contradiction_words[0]
    assert (first.word, first.entailments, first.contradictions) == ("not", 0, 380)
    assert all(use.word != "not" for use in bias.entailment_words)


def test_words_of_both_sides_do_not_stand_out_if_one_side_is_longer():
    rows = [(name, f"both {e}", f"both {e} it is not so") for name, e, _ in corpus(100)]
    bias = measured(rows)
    assert [use.word for use in bias.contradiction_words] == ["is", "it", "not", "so"]
    assert bias.entailment_words == []


def test_sides_exchanged_exchange_the_words():
    rows = corpus(400, "not")
    there, back = measured(rows), measured([(name, c, e) for name, e, c in rows])
    assert back.auc == pytest.approx(there.auc, abs=1e-12)
    assert back.entailment_words[0].word == "not"
    assert [use.word for use in back.contradiction_words] == [use.word for use in there.entailment_words]


def test_without_bias_the_auc_is_chance():
    bias = measured(corpus(2000))
    assert abs(bias.auc - 0.5) < 0.03
    assert not bias.is_strong


def test_hypotheses_without_words_are_chance():
    bias = measured([(name, "...", "?!") for name, _, _ in corpus(60)])
    assert (bias.auc, bias.entailment_words, bias.contradiction_words) == (0.5, [], [])


def table(rows: Rows) -> pa.Table:
    columns = dict(zip(("row_id", "entailment", "contradiction"), zip(*rows, strict=True), strict=True))
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def test_the_sample_does_not_depend_on_order_or_files():
    rows = corpus(300, "not")
    whole, parts = HypothesisSample(100), HypothesisSample(100)
    whole.add(table(rows))
    for start in range(0, 300, 7):
        parts.add(table(rows[::-1][start : start + 7]))
    bias = whole.lexical_bias()
    assert bias == parts.lexical_bias() == measured(sorted(rows)[:100])
    assert bias is not None
    assert bias.num_rows == 100


def test_few_rows_claim_nothing():
    sample = HypothesisSample()
    assert sample.lexical_bias() is None
    sample.add(table(corpus(49, "not")))
    assert sample.lexical_bias() is None
    sample.add(table([(row_id("more", "en"), "a", "b")]))
    assert sample.lexical_bias() is not None


def test_a_long_text_is_cut():
    sample = HypothesisSample()
    sample.add(table([(name, f"{e} {'x ' * 600}late", e) for name, e, _ in corpus(60)]))
    bias = sample.lexical_bias()
    assert bias is not None
    assert [use.word for use in bias.entailment_words] == ["x"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It is NOT so, it isn\u2019t.", {"it", "is", "not", "so", "isn't"}),
        ("a_b 'quoted' --- 12%", {"a", "b", "quoted", "12"}),
        ("\u4e0d\u662f\u3002", {"\u4e0d", "\u662f"}),
        ("\u0928\u0939\u0940\u0902 \u0939\u0948\u0964", {"\u0928\u0939\u0940\u0902", "\u0939\u0948"}),
        ("Cafe\u0301 caf\u00e9", {"caf\u00e9"}),
        ("w" * 200, {"w" * 40}),
        ("", set()),
    ],
)
def test_words_are_those_of_a_reader(text, words):
    assert words_of(text) == words
