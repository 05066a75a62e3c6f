"""Pair classification: pairs with label 1 must be more similar than pairs with label 0."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from multicsr.errors import ConfigError
from multicsr.labelled_files import digest_of, read_rows
from multicsr.stages.evaluate.kinds.means import share_measurement
from multicsr.stages.evaluate.kinds.reader import DataFile, Kind, single_files
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Encode, Examples, Measurement, Role, Score
from multicsr.stages.evaluate.vectors import similarities

PAIR_COLUMNS = ("label", "sentence1", "sentence2")
NLI_COLUMNS = ("label", "premise", "hypothesis")
_LABELS = {
    "0": 0,
    "1": 1,
    "0.0": 0,
    "1.0": 1,
    "False": 0,
    "True": 1,
    "false": 0,
    "true": 1,
    "entailment": 1,
    "contradiction": 0,
    "not_entailment": 0,
    "neutral": None,
    "-": None,
}
"""Labels as files, JSON and data frames have them; pairs with None are left out, as in mteb's tasks of NLI
data."""
_NAMES = "0, 1, entailment, contradiction, not_entailment, neutral, -"
"""The labels that a message names."""
_TRAIN = re.compile(r"(^|[_./-])train([_./-]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class PairClassificationTask:
    """Pairs of sentences with a label of 1 (they mean the same) or 0."""

    name: str
    labels: list[int]
    sentences1: list[str]
    sentences2: list[str]
    kind = "pair classification"

    def describe(self) -> str:
        """Implement `Task.describe`."""
        return f"{len(self.labels):,} pairs, {sum(self.labels):,} with label 1"

    def texts(self) -> Mapping[Role, list[str]]:
        """Implement `Task.texts`."""
        return {Role.SENTENCE: [*self.sentences1, *self.sentences2]}

    def digest(self) -> str:
        """Implement `Task.digest`."""
        return digest_of(self.kind, self)

    def measure(self, encode: Encode, similarity: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`: average precision, then the best accuracy and F1 with their thresholds.

        All are those of sentence-transformers' `BinaryClassificationEvaluator`. The best values are found on
        the pairs that they are measured on, so they are a little too high on small files.
        """
        from sentence_transformers.sentence_transformer.evaluation import (
            BinaryClassificationEvaluator as Evaluator,
        )
        from sklearn.metrics import average_precision_score

        value_N = similarities([self.sentences1, self.sentences2], encode, similarity)[:, 0]
        label_N = np.asarray(self.labels)
        precision = 100 * float(average_precision_score(label_N, value_N))
        _, at_accuracy = Evaluator.find_best_acc_and_threshold(value_N, label_N, True)
        f1, _, _, at_f1 = Evaluator.find_best_f1_and_threshold(value_N, label_N, True)
        right_N = (value_N >= at_accuracy) == label_N
        examples = Examples("average_precision", np.stack([value_N, label_N], axis=1), scale=100)
        return [
            Measurement(self._score("average precision x 100", precision, similarity), examples),
            share_measurement(self, "best accuracy x 100", right_N, similarity=similarity),
            Measurement(self._score("best F1 x 100", 100 * float(f1), similarity), None),
            Measurement(
                self._score(f"{similarity} of the best accuracy", float(at_accuracy), similarity), None
            ),
            Measurement(self._score(f"{similarity} of the best F1", float(at_f1), similarity), None),
        ]

    def _score(self, metric: str, value: float, similarity: Similarity) -> Score:
        return Score(
            task=self.name,
            kind=self.kind,
            metric=metric,
            value=value,
            num_rows=len(self.labels),
            similarity=similarity,
        )


def read_pair_classification(file: DataFile) -> PairClassificationTask | None:
    """Read labelled pairs; None if the file has other columns, or is training data of natural language
    inference.

    Raises:
        ConfigError: a label is unknown, or all labels are equal.
    """
    is_nli = file.columns.issuperset(NLI_COLUMNS)
    if not (file.columns.issuperset(PAIR_COLUMNS) or (is_nli and not _TRAIN.search(file.name))):
        return None
    rows = []
    for number, (label, *sentences) in read_rows(file.path, NLI_COLUMNS if is_nli else PAIR_COLUMNS):
        if label not in _LABELS:
            raise ConfigError(f"{file.path}, line {number}: label {label!r} is none of {_NAMES}")
        if (value := _LABELS[label]) is not None:
            rows.append((value, *sentences))
    if len({row[0] for row in rows}) < 2:
        raise ConfigError(f"{file.path}: pair classification needs pairs of both labels, 0 and 1")
    labels, sentences1, sentences2 = (list(column) for column in zip(*rows, strict=True))
    return PairClassificationTask(file.name, labels, sentences1, sentences2)


KIND = Kind(
    "pair classification",
    f"columns {', '.join(PAIR_COLUMNS)} with labels 0 and 1; or {', '.join(NLI_COLUMNS)}, not training data",
    single_files(read_pair_classification),
)
