"""Transfer: how well a linear classifier on the vectors finds the labels, by the protocol of SentEval."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import ConfigError
from multicsr.labelled_files import digest_of, read_rows
from multicsr.stages.evaluate.kinds import pair_classification, senteval
from multicsr.stages.evaluate.kinds.means import share_measurement
from multicsr.stages.evaluate.kinds.pair_classification import PAIR_COLUMNS
from multicsr.stages.evaluate.kinds.reader import DataFile, FoundTask, Kind, UnusableFiles, attempt
from multicsr.stages.evaluate.kinds.splits import group_splits
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Encode, Measurement, Role, Score, Task
from multicsr.stages.evaluate.vectors import finite_vectors

_COLUMNS = (PAIR_COLUMNS, ("label", "sentence"), ("label", "text"))
_WHOLE = "all"
"""Name of the only part of a data set without splits."""
_MIN_ROWS = 12
"""Rows that every label needs, so that each of ten folds within nine tenths of them has one."""


@dataclass(frozen=True)
class TransferTask:
    """A data set of labelled sentences, or pairs: in one part, or in a training, a test and perhaps a dev
    split.

    The rows of a part are in SentEval's order: by the number of words of the sentences, then by label. The
    folds depend on it.
    """

    name: str
    labels: dict[str, list[str]]
    """Labels of the rows of each part: `all`, or `train`, `dev` and `test`."""
    sentences: dict[str, list[tuple[str, ...]]]
    """One sentence, or two, of each of these rows."""
    kind = "transfer"

    def describe(self) -> str:
        """Implement `Task.describe`."""
        unit = "pairs" if self.has_pairs else "sentences"
        if _WHOLE in self.labels:
            return f"{len(self.labels[_WHOLE]):,} {unit}, {len(self._names)} labels, {senteval.FOLDS} folds"
        sizes = ", ".join(f"{split} {len(labels):,}" for split, labels in self.labels.items())
        return f"{unit} of {len(self._names)} labels: {sizes}"

    def texts(self) -> Mapping[Role, Iterator[str]]:
        """Implement `Task.texts`."""
        return {Role.SENTENCE: (text for rows in self.sentences.values() for row in rows for text in row)}

    def digest(self) -> str:
        """Implement `Task.digest`."""
        return digest_of(self.kind, self)

    def measure(self, encode: Encode, _: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`: accuracy, and F1 of pairs with two labels, in percent.

        The accuracy is over all rows that are predicted. SentEval rounds it in each fold and takes the mean
        of the folds, which differs by less than 0.01.
        """
        true_N = self._classes(self._measured)
        predicted_N = self._predict(encode)
        measurements = [share_measurement(self, "accuracy x 100", predicted_N == true_N)]
        if self.has_pairs and len(self._names) == 2:
            measurements.append(self._f1(true_N, predicted_N))
        return measurements

    @property
    def _measured(self) -> str:
        return _WHOLE if _WHOLE in self.labels else "test"

    @property
    def _names(self) -> list[str]:
        return sorted(set(self.labels[_WHOLE if _WHOLE in self.labels else "train"]))

    @property
    def has_pairs(self) -> bool:
        """Return True for pairs of sentences."""
        return len(self.sentences[self._measured][0]) == 2

    def _classes(self, part: str) -> NDArray[np.int64]:
        number = {name: number for number, name in enumerate(self._names)}
        return np.array([number[label] for label in self.labels[part]])

    def _features(self, part: str, encode: Encode) -> NDArray[np.float32]:
        first_ND, *others = (
            finite_vectors(column, encode) for column in zip(*self.sentences[part], strict=True)
        )
        return senteval.pair_features(first_ND, others[0]) if others else first_ND

    def _predict(self, encode: Encode) -> NDArray[np.int64]:
        data = {part: (self._features(part, encode), self._classes(part)) for part in self.labels}
        if _WHOLE in data:
            return senteval.predict_folds(*data[_WHOLE])
        test_MD, _ = data["test"]
        if "dev" in data:
            return senteval.predict_test_with_dev(*data["train"], *data["dev"], test_MD)
        return senteval.predict_test(*data["train"], test_MD)

    def _f1(self, true_N: NDArray[np.int64], predicted_N: NDArray[np.int64]) -> Measurement:
        from sklearn.metrics import f1_score

        score = Score(
            task=self.name,
            kind=self.kind,
            metric="F1 x 100",
            value=100 * float(f1_score(true_N, predicted_N, zero_division=0)),
            num_rows=len(true_N),
        )
        return Measurement(score, None)


def _task(name: str, files: Mapping[str, DataFile]) -> TransferTask | None:
    """Read the files of a data set by part; None if they have other columns, or not the same ones."""
    columns = {_columns(file) for file in files.values()}
    if None in columns or len({len(names or ()) for names in columns}) > 1:
        return None
    rows = {part: _rows(file) for part, file in files.items()}
    labels = {part: [row[0] for row in rows_of_part] for part, rows_of_part in rows.items()}
    task = TransferTask(
        name, labels, {part: [tuple(row[1:]) for row in of_part] for part, of_part in rows.items()}
    )
    _check_labels(labels, files)
    return task


def _columns(file: DataFile) -> tuple[str, ...] | None:
    return next((columns for columns in _COLUMNS if file.columns.issuperset(columns)), None)


def _rows(file: DataFile) -> list[list[str]]:
    """Return label and sentences of each row, in SentEval's order."""
    rows = [values for _, values in read_rows(file.path, _columns(file) or ())]
    if not rows:
        raise ConfigError(f"{file.path} has no rows")
    return sorted(rows, key=lambda row: (*(len(text.split()) for text in row[1:]), row[0]))


def _check_labels(labels: Mapping[str, Sequence[str]], files: Mapping[str, DataFile]) -> None:
    trained = Counter(labels[_WHOLE if _WHOLE in labels else "train"])
    path = files[_WHOLE if _WHOLE in labels else "train"].path
    if len(trained) < 2:
        raise ConfigError(f"{path}: all rows have one label; a classifier needs two or more")
    rare, count = trained.most_common()[-1]
    if count < _MIN_ROWS and "dev" not in labels:
        raise ConfigError(
            f"{path}: {count} rows with label {rare!r}; the folds of SentEval need {_MIN_ROWS} of each"
        )
    for part, found in labels.items():
        if unknown := sorted(set(found) - trained.keys()):
            raise ConfigError(f"{files[part].path}: no row of {path} has the label {unknown[0]!r}")


def _find(files: Sequence[DataFile]) -> Iterator[FoundTask | UnusableFiles]:
    """Find data sets with splits, and single files of sentences with two labels, which are cut into folds.

    The test split of pairs with labels 0 and 1 is a task of pair classification too.
    """
    data_sets, others = group_splits(file for file in files if _columns(file))
    for splits in data_sets:
        for found in attempt([*splits.files.values()], partial(_found, splits.name, splits.files)):
            yield found
            if isinstance(found, FoundTask) and _is_pair_classification(found.task):
                yield from pair_classification.KIND.find([splits.files["test"]])
    for file in others:
        if _columns(file) != PAIR_COLUMNS:
            yield from attempt([file], partial(_in_folds, file))


def _found(name: str, files: Mapping[str, DataFile]) -> FoundTask | None:
    task = _task(name, files)
    return None if task is None else FoundTask(task, [*files.values()])


def _is_pair_classification(task: Task) -> bool:
    return isinstance(task, TransferTask) and task.has_pairs and set(task.labels["test"]) == {"0", "1"}


def _in_folds(file: DataFile) -> FoundTask | None:
    has_two_labels = len({row[0] for row in _rows(file)}) == 2
    return _found(file.name, {_WHOLE: file}) if has_two_labels else None


KIND = Kind(
    "transfer",
    "columns label, sentence in one file with two labels; or label, sentence, or label, sentence1, sentence2,"
    " in files NAME_train, NAME_test and perhaps NAME_dev",
    _find,
)
