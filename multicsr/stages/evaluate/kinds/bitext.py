"""Bitext: for each sentence, its translation must be the nearest of all sentences of the other language."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import ConfigError
from multicsr.labelled_files import digest_of, read_columns, read_rows
from multicsr.stages.evaluate.kinds.means import mean_measurement
from multicsr.stages.evaluate.kinds.reader import DataFile, Kind, single_files
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Encode, Measurement, Role
from multicsr.stages.evaluate.vectors import scaled_vectors

_BLOCK = 1024
"""Rows of the matrix of similarities that are in memory at a time."""
_LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
"""Code of a language, such as `tl`, `tgl`, `pt-BR` or `zho_Hans`."""
_NAMED = ({"source", "target"}, {"src", "tgt"})


@dataclass(frozen=True)
class BitextTask:
    """Sentences and their translations, row by row."""

    name: str
    languages: tuple[str, str]
    """Names of the two columns."""
    sources: list[str]
    targets: list[str]
    kind = "bitext"

    def describe(self) -> str:
        """Implement `Task.describe`."""
        return f"{len(self.sources):,} translations {' - '.join(self.languages)}"

    def texts(self) -> Mapping[Role, list[str]]:
        """Implement `Task.texts`."""
        return {Role.SENTENCE: [*self.sources, *self.targets]}

    def digest(self) -> str:
        """Implement `Task.digest`."""
        return digest_of(self.kind, self)

    def measure(self, encode: Encode, similarity: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`: accuracy, then F1, both in percent and as the mean of both directions.

        The accuracy is that of sentence-transformers' `TranslationEvaluator`: a sentence counts if the
        nearest one of the other language has the text of its translation. The error of LASER is 100 minus it.
        (That evaluator takes the cosine for every encoder; mteb takes the encoder's own similarity.)
        F1 is that of mteb: the distinct sentences of the other language are classes, weighted by their rows.
        """
        source_ND, target_ND = (
            scaled_vectors(texts, encode, Role.SENTENCE, similarity) for texts in (self.sources, self.targets)
        )
        forward, backward = "{}>{}".format(*self.languages), "{1}>{0}".format(*self.languages)
        right, f1 = {}, {}
        for name, from_ND, to_ND, texts in (
            (forward, source_ND, target_ND, self.targets),
            (backward, target_ND, source_ND, self.sources),
        ):
            true_N = _first_rows(texts)
            found_N = true_N[nearest(from_ND, to_ND, similarity)]
            right[name] = 100.0 * (found_N == true_N)
            f1[name] = 100.0 * _f1_of_rows(true_N, found_N)
        return [
            self._both_ways("accuracy x 100", right, similarity),
            self._both_ways("F1 x 100", f1, similarity),
        ]

    def _both_ways(
        self, metric: str, values: Mapping[str, NDArray[np.float64]], similarity: Similarity
    ) -> Measurement:
        means = {name: float(np.mean(value_N)) for name, value_N in values.items()}
        return mean_measurement(self, metric, np.mean([*values.values()], axis=0), means, similarity)


def nearest(
    from_ND: NDArray[np.float64], to_MD: NDArray[np.float64], similarity: Similarity
) -> NDArray[np.int64]:
    """Return the row of the nearest of M vectors for each of N vectors, [N]; the first one of equal ones.

    The vectors are scaled for the similarity, whose matrix is computed in blocks of rows.
    """
    blocks = [
        np.argmax(similarity.of_all(from_ND[start : start + _BLOCK], to_MD), axis=1)
        for start in range(0, len(from_ND), _BLOCK)
    ]
    return np.concatenate(blocks)


def _first_rows(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return for each row the first row with the same text, [N]."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(text, row) for row, text in enumerate(texts)])


def _f1_of_rows(true_N: NDArray[np.int64], found_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the F1 of the class of each row, [N]; its mean is the F1 weighted by rows."""
    from sklearn.metrics import f1_score

    classes_C, class_N = np.unique(true_N, return_inverse=True)
    f1_C = np.asarray(f1_score(true_N, found_N, labels=classes_C, average=None, zero_division=0))
    return np.asarray(f1_C[class_N], dtype=np.float64)


def language_columns(columns: Sequence[str]) -> tuple[str, str] | None:
    """Return the two columns of translations, or None.

    They are all columns of the file except one named `id` or `idx`. `id` is the code of Indonesian too: it is
    a language if there is one other column only. As three letters may be any word (`key`, `val`), one of both
    languages must be `eng` or have a code of two letters.
    """
    others = list(columns) if len(columns) == 2 else [name for name in columns if name not in ("id", "idx")]
    is_language = [_LANGUAGE.fullmatch(name) is not None and name != "idx" for name in others]
    is_sure = any(name == "eng" or len(re.split("[-_]", name)[0]) == 2 for name in others)
    if len(others) != 2 or not ((all(is_language) and is_sure) or set(others) in _NAMED):
        return None
    return others[0], others[1]


def _read(file: DataFile) -> BitextTask | None:
    if (languages := language_columns(read_columns(file.path))) is None:
        return None
    rows = [values for _, values in read_rows(file.path, languages)]
    if not rows:
        raise ConfigError(f"{file.path} has no rows")
    sources, targets = (list(column) for column in zip(*rows, strict=True))
    return BitextTask(file.name, languages, sources, targets)


KIND = Kind(
    "bitext",
    "two columns named by languages, such as id, tgl, eng (one of them eng, or of two letters)",
    single_files(_read),
)
