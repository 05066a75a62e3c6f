import numpy as np
import pytest
from sentence_transformers.sentence_transformer.evaluation import BinaryClassificationEvaluator

from multicsr.errors import ConfigError
from multicsr.stages.evaluate.kinds import pair_classification
from multicsr.stages.evaluate.kinds.pair_classification import PairClassificationTask
from tests.support.kind_files import find, write_tsv
from tests.support.tiny_encoders import WORDS
from tests.support.trigram_encoder import TrigramModel, trigrams


@pytest.fixture
def task() -> PairClassificationTask:
    """200 pairs; those with label 1 share three words of five, the others one or two."""
    draw = np.random.default_rng(3)
    labels = [int(label) for label in draw.integers(2, size=200)]
    left = [list(draw.choice(WORDS, size=5)) for _ in labels]
    kept = [3 if label else int(draw.integers(1, 4)) for label in labels]
    right = [words[:k] + list(draw.choice(WORDS, size=5 - k)) for words, k in zip(left, kept, strict=True)]
    return PairClassificationTask("pairs", labels, [" ".join(w) for w in left], [" ".join(w) for w in right])


def test_metrics_are_those_of_the_binary_classification_evaluator(task):
    evaluator = BinaryClassificationEvaluator(
        task.sentences1, task.sentences2, task.labels, show_progress_bar=False, similarity_fn_names=["cosine"]
    )
    expected = evaluator(TrigramModel())
    found = {m.score.metric: m.score.value for m in task.measure(trigrams)}
    assert found == {
        "average precision x 100": pytest.approx(100 * expected["cosine_ap"], abs=1e-4),
        "best accuracy x 100": pytest.approx(100 * expected["cosine_accuracy"]),
        "best F1 x 100": pytest.approx(100 * expected["cosine_f1"]),
        "cosine of the best accuracy": pytest.approx(expected["cosine_accuracy_threshold"], abs=1e-5),
        "cosine of the best F1": pytest.approx(expected["cosine_f1_threshold"], abs=1e-5),
    }
    assert 60 < found["average precision x 100"] < 98


def test_best_values_are_the_highest_over_all_thresholds(task):
    u, v = (trigrams(texts).astype(float) for texts in (task.sentences1, task.sentences2))
    cosine = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(u, v, strict=True)]
    accuracies, f1s = [], []
    for threshold in [*cosine, 2.0]:
        predicted = [c >= threshold for c in cosine]
        pairs = list(zip(predicted, task.labels, strict=True))
        both, errors = sum(p and y for p, y in pairs), sum(p != y for p, y in pairs)
        accuracies.append(1 - errors / len(pairs))
        f1s.append(2 * both / (sum(predicted) + sum(task.labels)))
    found = {m.score.metric: m.score.value for m in task.measure(trigrams)}
    assert found["best accuracy x 100"] == pytest.approx(100 * max(accuracies))
    assert found["best F1 x 100"] == pytest.approx(100 * max(f1s))


def test_labels_of_inference_data_are_entailment_against_contradiction(tmp_path):
    rows = [[label, f"premise {i}", f"hypothesis {i}"] for i, label in enumerate(
        ["entailment", "neutral", "contradiction", "-", "not_entailment"]
    )]  # fmt: skip
    [found] = find(
        pair_classification.KIND, write_tsv(tmp_path / "x.tsv", ["label", "premise", "hypothesis"], rows)
    )
    assert found.task.labels == [1, 0, 0]
    assert found.task.sentences1 == ["premise 0", "premise 2", "premise 4"]


@pytest.mark.parametrize(
    ("name", "is_task"),
    [("snli_train", False), ("snli_train_sample", False), ("snli_test", True), ("trains", True)],
)
def test_training_data_of_inference_are_no_task(tmp_path, name, is_task):
    rows = [["entailment", "a", "b"], ["contradiction", "a", "c"]]
    path = write_tsv(tmp_path / f"{name}.tsv", ["label", "premise", "hypothesis"], rows)
    assert bool(find(pair_classification.KIND, path)) == is_task


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["1", "maybe"], r"line 3: label 'maybe' is none of"), (["1", "1"], "pairs of both labels")],
)
def test_unusable_labels_are_an_error_with_its_place(tmp_path, labels, message):
    path = write_tsv(
        tmp_path / "x.tsv", ["label", "sentence1", "sentence2"], [[label, "a", "b"] for label in labels]
    )
    with pytest.raises(ConfigError, match=message):
        find(pair_classification.KIND, path)
