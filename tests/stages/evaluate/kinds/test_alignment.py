import math

import numpy as np
import pytest

from multicsr.errors import ConfigError
from multicsr.stages.evaluate.kinds import alignment
from multicsr.stages.evaluate.kinds.alignment import MAX_TEXTS, PositivePairsTask, sample, uniformity
from tests.support.kind_files import find, write_tsv
from tests.support.trigram_encoder import trigrams


def test_alignment_and_uniformity_are_their_definitions_over_pairs():
    pairs = PositivePairsTask("pairs", ["one cat", "two cats", "a dog"], ["a cat", "cats", "one cat"])
    unit = {text: v / np.linalg.norm(v) for text in {*pairs.sentences1, *pairs.sentences2}
            for v in [trigrams([text])[0].astype(float)]}  # fmt: skip
    squares = [sum((unit[a] - unit[b]) ** 2) for a, b in zip(pairs.sentences1, pairs.sentences2, strict=True)]
    texts = sorted(unit)
    potentials = [
        math.exp(-2 * sum((unit[a] - unit[b]) ** 2)) for i, a in enumerate(texts) for b in texts[:i]
    ]
    aligned, uniform = pairs.measure(trigrams)
    assert aligned.score.value == pytest.approx(-sum(squares) / 3)
    assert uniform.score.value == pytest.approx(-math.log(sum(potentials) / len(potentials)))
    assert (aligned.score.num_rows, uniform.score.num_rows) == (3, 5)


def test_uniformity_over_several_blocks_equals_all_pairs_at_once():
    vectors = np.random.default_rng(0).normal(size=(2500, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    square = 2 - 2 * vectors @ vectors.T
    expected = np.log(np.mean(np.exp(-2 * square[np.triu_indices(2500, k=1)])))
    assert uniformity(vectors) == pytest.approx(expected, rel=1e-12)


def test_equal_vectors_have_no_uniformity_and_full_alignment():
    same = PositivePairsTask("same", ["a", "b"], ["c", "d"]).measure(
        lambda texts, *_: np.ones((len(texts), 2))
    )
    assert [m.score.value for m in same] == [0.0, pytest.approx(0.0, abs=1e-9)]


def test_sample_of_many_texts_is_the_same_subset_in_order():
    texts = [str(number) for number in range(MAX_TEXTS + 50)]
    chosen = sample(texts)
    assert len({*chosen}) == MAX_TEXTS
    assert chosen == sorted(chosen, key=int) == sample(texts)
    assert sample(texts[:5]) == texts[:5]


@pytest.mark.parametrize("columns", [("anchor", "positive"), ("sentence1", "sentence2"), ("sent0", "sent1")])
def test_pairs_are_read_from_files_of_two_columns(tmp_path, columns):
    [found] = find(alignment.KIND, write_tsv(tmp_path / "p.tsv", columns, [["a", "b"], ["c", "d"]]))
    assert found.task == PositivePairsTask("p", ["a", "c"], ["b", "d"])


def test_pairs_of_one_text_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match="two different texts"):
        find(alignment.KIND, write_tsv(tmp_path / "p.tsv", ["anchor", "positive"], [["a", "a"]]))


@pytest.mark.parametrize("column", ["similarity", "gold_label", " score "])
def test_pairs_beside_a_column_that_may_grade_them_are_no_positive_pairs(tmp_path, column):
    rows = [["1", "a", "b"], ["0", "c", "d"]]
    assert find(alignment.KIND, write_tsv(tmp_path / "p.tsv", [column, "sentence1", "sentence2"], rows)) == []
    [found] = find(alignment.KIND, write_tsv(tmp_path / "i.tsv", ["id", "sentence1", "sentence2"], rows))
    assert found.task.sentences1 == ["a", "c"]
