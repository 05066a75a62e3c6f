"""SentEval's protocol against its loops written out: every classifier anew, no row kept from another."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from multicsr.stages.evaluate.kinds import senteval

SPLITS = {"n_splits": 10, "shuffle": True, "random_state": 1111}


def plain_fit(x, y, strength):
    return LogisticRegression(C=strength, random_state=1111, max_iter=2000, tol=1e-8).fit(x, y)


def plain_choice(x, y, strengths, folds):
    """InnerKFoldClassifier and KFoldClassifier: the first C of the highest rounded mean accuracy."""
    means = []
    for strength in strengths:
        scores = [plain_fit(x[train], y[train], strength).score(x[test], y[test]) for train, test in folds]
        means.append(round(100 * np.mean(scores), 2))
    return strengths[means.index(max(means))]


def data(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    y = draw.integers(classes, size=count)
    centres = np.random.default_rng(99).normal(size=(classes, 6))
    x = centres[y] + 1.7 * draw.normal(size=(count, 6))
    return x.astype(np.float32), y


def test_folds_within_folds_predict_what_the_loops_predict():
    x, y = data(0, 240, 2)
    expected = np.empty_like(y)
    for train, test in StratifiedKFold(**SPLITS).split(x, y):
        inner = [*StratifiedKFold(**SPLITS).split(x[train], y[train])]
        best = plain_choice(x[train], y[train], [0.25, 0.5, 1, 2, 4, 8], inner)
        expected[test] = plain_fit(x[train], y[train], best).predict(x[test])
    assert (senteval.predict_folds(x, y) == expected).mean() > 0.995
    assert 0.6 < (expected == y).mean() < 0.95


def test_folds_of_the_training_split_choose_for_the_test_split():
    (x, y), (test, _) = data(1, 240, 2), data(2, 300, 2)
    best = plain_choice(x, y, [0.5, 1, 2, 4, 8, 16, 32], [*StratifiedKFold(**SPLITS).split(x, y)])
    assert (senteval.predict_test(x, y, test) == plain_fit(x, y, best).predict(test)).mean() > 0.995


def test_validation_split_chooses_and_is_not_trained_on():
    (x, y), (dev, dev_y), (test, _) = data(3, 240, 5), data(4, 150, 5), data(5, 300, 5)
    scores = [round(100 * plain_fit(x, y, c).score(dev, dev_y), 2) for c in (0.25, 0.5, 1, 2, 4, 8)]
    best = (0.25, 0.5, 1, 2, 4, 8)[scores.index(max(scores))]
    found = senteval.predict_test_with_dev(x, y, dev, dev_y, test)
    assert (found == plain_fit(x, y, best).predict(test)).mean() > 0.995


def test_features_of_a_pair_are_absolute_difference_and_product():
    features = senteval.pair_features(np.array([[1.0, -2.0]]), np.array([[3.0, 5.0]]))
    assert features.tolist() == [[2.0, 7.0, 3.0, -10.0]]
