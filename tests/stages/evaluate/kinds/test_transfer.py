import numpy as np
import pytest
from sklearn.metrics import f1_score

from multicsr.errors import ConfigError
from multicsr.stages.evaluate.kinds import senteval, transfer
from tests.support.kind_files import find, write_tsv
from tests.support.trigram_encoder import trigrams as unscaled

GOOD, BAD = ["great", "fine", "lovely", "superb"], ["awful", "dull", "poor", "dreadful"]


def trigrams(texts, *role):
    vectors = unscaled(texts, *role)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reviews(seed: int, count: int) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        label = number % 2
        words = draw.choice(
            (GOOD if label else BAD) + ["film", "plot", "cast", "music"], size=draw.integers(2, 6)
        )
        rows.append([str(label), " ".join(map(str, words))])
    return rows


@pytest.fixture
def whole(tmp_path):
    return write_tsv(tmp_path / "mr.tsv", ["label", "sentence"], reviews(0, 80))


def test_file_with_two_labels_is_measured_by_folds(whole):
    [found] = find(transfer.KIND, whole)
    [accuracy] = found.task.measure(trigrams)
    texts, labels = (found.task.sentences["all"], found.task.labels["all"])
    predicted = senteval.predict_folds(trigrams([text for (text,) in texts]), np.array([*map(int, labels)]))
    assert accuracy.score.value == pytest.approx(100 * np.mean(predicted == np.array([*map(int, labels)])))
    assert (accuracy.score.num_rows, accuracy.examples.value_NK.shape) == (80, (80, 1))
    assert accuracy.score.value > 75


def test_rows_are_in_the_order_of_senteval_because_folds_depend_on_it(whole):
    [found] = find(transfer.KIND, whole)
    keys = [
        (len(text.split()), label)
        for (text,), label in zip(found.task.sentences["all"], found.task.labels["all"], strict=True)
    ]
    assert keys == sorted(keys)
    assert len(keys) == 80


@pytest.mark.parametrize("names", [("sst_{}", "sst"), ("sst/{}", "sst")])
def test_files_named_by_splits_are_one_task(tmp_path, names):
    pattern, name = names
    paths = [
        write_tsv(tmp_path / f"{pattern.format(split)}.tsv", ["label", "sentence"], reviews(seed, 40))
        for seed, split in enumerate(["test", "train", "validation"])
    ]
    [found] = find(transfer.KIND, *paths)
    assert [*found.task.labels] == ["train", "dev", "test"]
    assert {file.path for file in found.files} == {*paths}
    assert found.task.name == name
    [accuracy] = found.task.measure(trigrams)
    assert accuracy.score.num_rows == 40


def test_pairs_have_accuracy_and_f1_of_their_test_split(tmp_path):
    def pairs(seed: int, count: int) -> list[list[str]]:
        draw = np.random.default_rng(seed)
        words = [GOOD if number % 2 else GOOD[:2] + BAD[2:] for number in range(count)]
        return [[str(i % 2), *(" ".join(draw.choice(words[i], size=3)) for _ in "12")] for i in range(count)]

    paths = [
        write_tsv(tmp_path / f"mrpc_{split}.tsv", ["label", "sentence1", "sentence2"], pairs(seed, 60))
        for seed, split in enumerate(["train", "test"])
    ]
    found, of_pairs = find(transfer.KIND, *paths)
    assert (of_pairs.task.kind, of_pairs.task.name) == ("pair classification", "mrpc_test")
    accuracy, f1 = found.task.measure(trigrams)

    def features(part: str) -> np.ndarray:
        first, second = (trigrams(column) for column in zip(*found.task.sentences[part], strict=True))
        return np.concatenate([np.abs(first - second), first * second], axis=1)

    labels = {part: np.array([*map(int, found.task.labels[part])]) for part in ("train", "test")}
    predicted = senteval.predict_test(features("train"), labels["train"], features("test"))
    assert accuracy.score.value == pytest.approx(100 * np.mean(predicted == labels["test"]))
    assert f1.score.value == pytest.approx(100 * f1_score(labels["test"], predicted))


def test_single_files_of_pairs_or_of_more_labels_are_left_to_other_kinds(tmp_path):
    pairs = write_tsv(tmp_path / "p.tsv", ["label", "sentence1", "sentence2"], [["1", "a", "b"]] * 20)
    topics = write_tsv(tmp_path / "t.tsv", ["label", "sentence"], [[str(i % 3), "a"] for i in range(60)])
    assert find(transfer.KIND, pairs, topics) == []


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([["1", "a"]] * 20, [["1", "a"]], "all rows have one label"),
        ([["1", "a"]] * 20 + [["0", "b"]] * 3, [["1", "a"]], "3 rows with label '0'"),
        ([["1", "a"]] * 20 + [["0", "b"]] * 20, [["2", "a"]], "no row of .*train.tsv has the label '2'"),
    ],
)
def test_labels_that_no_classifier_can_learn_are_an_error(tmp_path, train, test, message):
    paths = [
        write_tsv(tmp_path / f"x_{split}.tsv", ["label", "sentence"], rows)
        for split, rows in (("train", train), ("test", test))
    ]
    with pytest.raises(ConfigError, match=message):
        find(transfer.KIND, *paths)
