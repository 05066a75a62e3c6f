import math

import numpy as np
import pytest

from multicsr.errors import RunError
from multicsr.stages.evaluate import Encode, Role, Score, StsTask, Task, TripletTask
from multicsr.stages.evaluate.vectors import similarities


def letters(texts: list[str], role: Role = Role.SENTENCE, /) -> np.ndarray:
    """A small deterministic encoder: letter counts."""
    return np.array([[float(text.count(letter)) for letter in "abcdefgh"] for text in texts])


def measure(task: Task, encode: Encode) -> Score:
    """The score in the main metric."""
    return task.measure(encode)[0].score


def plain_cosine(left: str, right: str) -> float:
    u, v = ([text.count(letter) for letter in "abcdefgh"] for text in (left, right))
    norm = math.sqrt(sum(x * x for x in u)) * math.sqrt(sum(x * x for x in v))
    return sum(x * y for x, y in zip(u, v, strict=True)) / norm


def mean_ranks(values: list[float]) -> list[float]:
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def plain_spearman(left: list[float], right: list[float]) -> float:
    """Pearson's correlation of mean ranks, written out."""
    x, y = mean_ranks(left), mean_ranks(right)
    mx, my = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return over / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


@pytest.fixture
def pairs() -> StsTask:
    """10,000 pairs (more than two blocks), with tied scores and tied cosines."""
    draw = np.random.default_rng(0)
    words = ["".join(draw.choice(list("abcdefgh"), size=5)) for _ in range(60)]
    left, right = ([words[i] for i in draw.integers(60, size=10_000)] for _ in range(2))
    scores = [float(s) for s in draw.integers(0, 6, size=10_000)]
    return StsTask("pairs", scores, left, right, ["x" if i % 3 else "y" for i in range(10_000)])


def test_sts_is_one_correlation_over_all_subsets_together(pairs):
    few = StsTask(
        "few",
        *(column[:400] for column in (pairs.scores, pairs.sentences1, pairs.sentences2)),
        pairs.subsets[:400],
    )
    predicted = [round(plain_cosine(a, b), 9) for a, b in zip(few.sentences1, few.sentences2, strict=True)]
    score = measure(few, lambda texts, role: letters(texts).round(9))
    assert (score.kind, score.num_rows) == ("sts", 400)
    assert score.value == pytest.approx(100 * plain_spearman(predicted, few.scores), abs=0.05)
    for name in ("x", "y"):
        rows = [i for i in range(400) if few.subsets[i] == name]
        expected = 100 * plain_spearman([predicted[i] for i in rows], [few.scores[i] for i in rows])
        assert score.subsets[name] == pytest.approx(expected, abs=0.05)


def test_cosines_do_not_depend_on_blocks_and_encode_a_sentence_once_a_block(pairs):
    calls: list[list[str]] = []

    def encode(texts: list[str], role: Role) -> np.ndarray:
        calls.append(texts)
        return letters(texts)

    found = similarities(pairs.columns(), encode)
    assert found.shape == (10_000, 1)
    assert len(calls) == 3
    assert all(len(texts) == len(set(texts)) for texts in calls)
    expected = [plain_cosine(a, b) for a, b in zip(pairs.sentences1, pairs.sentences2, strict=True)]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-12)


def test_perfect_order_is_100_and_reversed_order_minus_100():
    task = StsTask("t", [1.0, 2.0, 3.0], ["a", "a", "a"], ["b", "ab", "aab"], [""] * 3)
    reversed_task = StsTask("t", [3.0, 2.0, 1.0], *task.columns(), task.subsets)
    assert measure(task, letters).value == pytest.approx(100)
    assert measure(reversed_task, letters).value == pytest.approx(-100)
    assert measure(task, letters).subsets == {}


def test_an_encoder_that_states_nothing_gets_zero():
    def constant(texts: list[str], role: Role) -> np.ndarray:
        return np.ones((len(texts), 3))

    sts = StsTask("t", [1.0, 2.0], ["a", "b"], ["c", "d"], ["x", "y"])
    score = measure(sts, constant)
    assert score.value == 0
    assert score.subsets == {}
    assert measure(TripletTask("t", ["a"], ["b"], ["c"]), constant).value == 0


def test_triplet_accuracy_counts_ties_as_wrong():
    task = TripletTask("t", ["a", "a", "a", "b"], ["ab", "b", "b", "bb"], ["b", "ab", "b", "ab"])
    score = measure(task, letters)
    assert (score.kind, score.metric, score.num_rows) == ("triplets", "accuracy x 100", 4)
    assert score.value == 50


def test_zero_vectors_have_cosine_zero():
    assert similarities([["a", "a"], ["z", "a"]], letters).tolist() == [[0.0], [1.0]]


def test_vectors_that_are_not_finite_stop_the_run():
    task = TripletTask("t", ["a"], ["b"], ["c"])
    with pytest.raises(RunError, match="not finite"):
        measure(task, lambda texts, role: np.full((len(texts), 2), np.nan))
