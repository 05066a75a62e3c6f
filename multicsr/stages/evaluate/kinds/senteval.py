"""SentEval's protocol: the accuracy of a logistic regression on frozen vectors.

Conneau and Kiela (2018), "SentEval: An Evaluation Toolkit for Universal Sentence Representations". This is
the path `usepytorch: False` of its code with `kfold: 10` and seed 1111, the values of its README: the folds,
the grids of the inverse regularisation strength C, the rounding of the accuracies that choose C, the first of
equally good ones. Its classifier is scikit-learn's `LogisticRegression(C)` with L2 regularisation of vectors
that are not standardised. Of scikit-learn's solvers for this convex problem the present default is taken,
`lbfgs`, until it converges; the default of SentEval's time, `liblinear`, regularises the intercept too.

    N rows     D features     y_N classes, counted from 0
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

Features = NDArray[np.float32]
Classes = NDArray[np.int64]
Folds = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]

FOLDS = 10
SEED = 1111
STRENGTHS = [2.0**t for t in range(-2, 4)]
"""Grid of C where one file is cut into folds, and where there is a validation split."""
STRENGTHS_OF_TRAIN_TEST = [2.0**t for t in range(-1, 6)]
"""Grid of C where folds of the training split choose it."""
_MAX_STEPS = 1_000
"""Steps after which the solver gives up. It needs about 30 on vectors of length 1."""


def predict_folds(x_ND: Features, y_N: Classes) -> Classes:
    """Predict each class of a data set without splits by cross-validation, [N].

    Every tenth is predicted by a classifier of the others, whose C is chosen by cross-validation within them.
    """
    predicted_N = np.empty_like(y_N)
    for train, test in _folds(x_ND, y_N):
        inner = _folds(x_ND[train], y_N[train])
        predicted_N[test] = _fit_best(x_ND[train], y_N[train], STRENGTHS, inner).predict(x_ND[test])
    return predicted_N


def predict_test(x_ND: Features, y_N: Classes, test_MD: Features) -> Classes:
    """Predict the classes of a test split, [M]; C is chosen by cross-validation within the training split."""
    return np.asarray(_fit_best(x_ND, y_N, STRENGTHS_OF_TRAIN_TEST, _folds(x_ND, y_N)).predict(test_MD))


def predict_test_with_dev(
    x_ND: Features, y_N: Classes, dev_VD: Features, dev_V: Classes, test_MD: Features
) -> Classes:
    """Predict the classes of a test split, [M]; C is chosen on a validation split, not trained on."""
    accuracies = [model.score(dev_VD, dev_V) for model in _path(x_ND, y_N, STRENGTHS)]
    return np.asarray(_fit(x_ND, y_N, _best(STRENGTHS, accuracies)).predict(test_MD))


def pair_features(first_ND: Features, second_ND: Features) -> Features:
    """Return the features |u - v| and u * v of pairs of vectors, [N, 2 D]."""
    return np.concatenate([np.abs(first_ND - second_ND), first_ND * second_ND], axis=1)


def _folds(x_ND: Features, y_N: Classes) -> Folds:
    from sklearn.model_selection import StratifiedKFold

    return [*StratifiedKFold(n_splits=FOLDS, shuffle=True, random_state=SEED).split(x_ND, y_N)]


def _fit_best(x_ND: Features, y_N: Classes, strengths: Sequence[float], folds: Folds) -> "LogisticRegression":
    """Fit with the C of the highest mean accuracy over folds of the same rows."""
    accuracy_KC = [
        [model.score(x_ND[test], y_N[test]) for model in _path(x_ND[train], y_N[train], strengths)]
        for train, test in folds
    ]
    return _fit(x_ND, y_N, _best(strengths, np.mean(accuracy_KC, axis=0)))


def _best(strengths: Sequence[float], accuracies: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the C of the highest accuracy in percent of two decimals; the smallest one of equals."""
    return strengths[int(np.argmax(np.round(100 * np.asarray(accuracies), 2)))]


def _path(x_ND: Features, y_N: Classes, strengths: Sequence[float]) -> Iterator["LogisticRegression"]:
    """Yield a classifier that is fitted with each C in turn, from the parameters of the C before.

    It is one object. The problem is convex, so the start decides nothing but the number of steps.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=_MAX_STEPS, warm_start=True)
    for strength in strengths:
        yield model.set_params(C=strength).fit(x_ND, y_N)


def _fit(x_ND: Features, y_N: Classes, strength: float) -> "LogisticRegression":
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=_MAX_STEPS).fit(x_ND, y_N)
