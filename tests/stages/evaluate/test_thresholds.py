import numpy as np
import pytest

from multicsr.stages.evaluate import StsTask, TripletTask
from multicsr.stages.evaluate.kinds.pair_classification import PairClassificationTask
from multicsr.stages.evaluate.thresholds import PRECISIONS, labelled_pairs, measure_thresholds, thresholds


def smallest_cosine(cosines, same, precision):
    """The smallest cosine from which on the precision is reached, by trying every one; None if none does."""
    good = []
    for cosine in cosines:
        above = [label for other, label in zip(cosines, same, strict=True) if other >= cosine]
        if sum(above) / len(above) >= precision:
            good.append(cosine)
    return min(good, default=None)


def drawn(num_pairs, seed, *, digits=2):
    """Cosines, with ties, of pairs that mean the same (higher) and of pairs that do not."""
    draw = np.random.default_rng(seed)
    same_N = draw.random(num_pairs) < 0.5
    return np.round(draw.normal(np.where(same_N, 0.7, 0.3), 0.15), digits), same_N


def sts(scores):
    texts = [f"text {number}" for number in range(len(scores))]
    return StsTask("sts", list(scores), texts, [f"other {text}" for text in texts], [""] * len(scores))


@pytest.mark.parametrize("seed", range(8))
def test_threshold_is_the_smallest_cosine_that_reaches_the_precision(seed):
    cosine_N, same_N = drawn(120, seed)
    found = {each.precision: each.cosine for each in thresholds(cosine_N, same_N, np.arange(120))}
    expected = {p: smallest_cosine(cosine_N.tolist(), same_N.tolist(), p) for p in PRECISIONS}
    assert found == {p: cosine for p, cosine in expected.items() if cosine is not None}


def test_counts_of_a_threshold():
    cosine_N = np.array([0.9, 0.8, 0.8, 0.7, 0.6])
    same_N = np.array([True, True, True, False, True])
    found = thresholds(cosine_N, same_N, np.arange(5))
    assert [(each.cosine, each.num_pairs, each.recall) for each in found] == [(0.8, 3, 0.75)] * 3


def test_precision_that_is_never_reached_is_left_out():
    cosine_N, same_N = np.array([0.9, 0.8, 0.7]), np.array([False, True, True])
    assert thresholds(cosine_N, same_N, np.arange(3)) == []


def test_interval_holds_the_cosine_and_narrows_with_more_pairs():
    widths = []
    for num_pairs in (200, 20_000):
        cosine_N, same_N = drawn(num_pairs, 1, digits=6)
        found = thresholds(cosine_N, same_N, np.arange(num_pairs))[1]
        low, high = found.cosine_interval
        assert low <= found.cosine <= high
        assert found.precision_interval[0] < 0.95 < found.precision_interval[1]
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_interval_covers_the_cosine_of_the_population():
    """Of 40 samples, about 38 intervals should hold the cosine of a very large one."""
    cosine_N, same_N = drawn(400_000, 0, digits=6)
    order = np.argsort(-cosine_N)
    precision_N = np.cumsum(same_N[order]) / np.arange(1, 400_001)
    true = cosine_N[order][np.flatnonzero(precision_N >= 0.95)[-1]]
    hits = 0
    for seed in range(1, 41):
        sample, labels = drawn(400, seed, digits=6)
        [found] = [each for each in thresholds(sample, labels, np.arange(400)) if each.precision == 0.95]
        hits += found.cosine_interval[0] <= true <= found.cosine_interval[1]
    assert hits >= 34


def test_pairs_of_one_row_are_resampled_together():
    cosine_N, same_N = drawn(100, 3, digits=6)
    alone = thresholds(np.tile(cosine_N, 20), np.tile(same_N, 20), np.arange(2000))[0].cosine_interval
    together = thresholds(np.tile(cosine_N, 20), np.tile(same_N, 20), np.tile(np.arange(100), 20))[0]
    assert together.cosine_interval[1] - together.cosine_interval[0] > 2 * (alone[1] - alone[0])


def test_triplets_are_two_pairs_each():
    pairs = labelled_pairs(TripletTask("t", ["a", "b"], ["c", "d"], ["e", "f"]))
    assert list(zip(pairs.sentences1, pairs.sentences2, pairs.same_N.tolist(), strict=True)) == [
        ("a", "c", True),
        ("b", "d", True),
        ("a", "e", False),
        ("b", "f", False),
    ]
    assert pairs.group_N.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("scores", "same"),
    [
        ([5.0, 4.0, 3.9, 0.0], [True, True, False, False]),
        ([0.0, 0.5, 1.0], None),
        ([0.0, 40.0, 100.0], None),
    ],
)
def test_scores_that_show_the_same_meaning(scores, same):
    pairs = labelled_pairs(sts(scores))
    assert (None if pairs is None else pairs.same_N.tolist()) == same


def test_labels_that_show_the_same_meaning():
    task = PairClassificationTask("pairs", [0, 1, 1], ["a", "b", "c"], ["d", "e", "f"])
    pairs = labelled_pairs(task)
    assert (pairs.sentences1, pairs.same_N.tolist()) == (["a", "b", "c"], [False, True, True])


def test_large_task_is_sampled_evenly():
    pairs = labelled_pairs(sts([float(number % 5) + 1 for number in range(12_001)]))
    assert len(pairs.same_N) == 5_000
    assert (pairs.sentences1[0], pairs.sentences1[-1]) == ("text 0", "text 12000")
    assert 0.35 < pairs.same_N.mean() < 0.45


def test_cosines_are_those_of_the_encoder():
    vectors = {"a": [1.0, 0.0], "b": [2.0, 2.0], "c": [0.0, 0.0]}
    task = TripletTask("t", ["a"], ["b"], ["c"])
    [found] = measure_thresholds([task], lambda texts, role=None: np.array([vectors[text] for text in texts]))
    assert (found.task, found.num_pairs, found.num_same) == ("t", 2, 1)
    assert [each.cosine for each in found.thresholds] == pytest.approx([2**-0.5] * 3)


def test_task_without_both_kinds_of_pairs_is_left_out():
    tasks = [sts([1.0, 2.0]), sts([4.0, 5.0])]
    assert measure_thresholds(tasks, lambda texts, role=None: np.ones((1, 1))) == []
