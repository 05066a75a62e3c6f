"""Alignment and uniformity of vectors on the unit sphere (Wang and Isola, 2020), for pairs without negatives.

Both are losses in the paper. Here their negatives are reported, so that higher is better as for every other
metric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import ConfigError
from multicsr.labelled_files import digest_of, read_rows
from multicsr.stages.evaluate.kinds.means import mean_measurement
from multicsr.stages.evaluate.kinds.reader import DataFile, Kind, single_files
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Encode, Measurement, Role, Score
from multicsr.stages.evaluate.vectors import unit_vectors

_T = 2.0
"""Factor of the squared distance in uniformity, as in the paper."""
_BLOCK = 1024
MAX_TEXTS = 10_000
"""Distinct texts between which uniformity is computed; of more, this many are drawn with a fixed seed."""
_COLUMNS = (("anchor", "positive"), ("sent0", "sent1"))
_PAIR_COLUMNS = ("sentence1", "sentence2")
"""Columns of pairs that may be of any meaning: a further column but these ids may grade or classify them."""
_IDS = frozenset({"id", "idx", "pair_id"})


@dataclass(frozen=True)
class PositivePairsTask:
    """Pairs of texts that mean the same."""

    name: str
    sentences1: list[str]
    sentences2: list[str]
    kind = "positive pairs"

    def describe(self) -> str:
        """Implement `Task.describe`."""
        return f"{len(self.sentences1):,} pairs of equal meaning"

    def texts(self) -> Mapping[Role, list[str]]:
        """Implement `Task.texts`."""
        return {Role.SENTENCE: [*self.sentences1, *self.sentences2]}

    def digest(self) -> str:
        """Implement `Task.digest`."""
        return digest_of(self.kind, self)

    def measure(self, encode: Encode, _: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`: negative alignment of the pairs, negative uniformity of their texts."""
        texts = [*dict.fromkeys([*self.sentences1, *self.sentences2])]
        score = Score(
            task=self.name,
            kind=self.kind,
            metric="negative uniformity",
            value=-uniformity(unit_vectors(sample(texts), encode)),
            num_rows=min(len(texts), MAX_TEXTS),
        )
        distance_N = squared_distances(
            unit_vectors(self.sentences1, encode), unit_vectors(self.sentences2, encode)
        )
        return [mean_measurement(self, "negative alignment", -distance_N), Measurement(score, None)]


def squared_distances(first_ND: NDArray[np.float64], second_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared distances of N pairs of vectors, [N]. Alignment is the mean over positive pairs."""
    return np.asarray(np.square(first_ND - second_ND).sum(axis=1))


def uniformity(vectors_ND: NDArray[np.float64]) -> float:
    """Compute log E exp(-2 |u - v|^2) over all pairs of two different rows; at most 0, lower is more uniform.

    Args:
        vectors_ND: vectors of length 1, two or more.
    """
    num, total = len(vectors_ND), 0.0
    for start in range(0, num, _BLOCK):
        block_BD = vectors_ND[start : start + _BLOCK]
        square_BN = np.maximum(2 - 2 * block_BD @ vectors_ND[start:].T, 0)
        # Entry (b, n) is the pair of rows start + b and start + n; each pair counts once.
        total += float(np.triu(np.exp(-_T * square_BN), k=1).sum())
    return float(np.log(total / (num * (num - 1) / 2)))


def sample(texts: Sequence[str]) -> Sequence[str]:
    """Return `MAX_TEXTS` of the texts, or all if there are fewer; the same ones in every evaluation."""
    if len(texts) <= MAX_TEXTS:
        return texts
    rows = np.random.default_rng(0).choice(len(texts), MAX_TEXTS, replace=False)
    return [texts[row] for row in np.sort(rows)]


def _read(file: DataFile) -> PositivePairsTask | None:
    columns = next((columns for columns in _COLUMNS if file.columns.issuperset(columns)), None)
    if columns is None and file.columns - _IDS == {*_PAIR_COLUMNS}:
        columns = _PAIR_COLUMNS
    if columns is None:
        return None
    rows = [values for _, values in read_rows(file.path, columns)]
    if len({text for row in rows for text in row}) < 2:
        raise ConfigError(f"{file.path}: uniformity needs two different texts or more")
    sentences1, sentences2 = (list(column) for column in zip(*rows, strict=True))
    return PositivePairsTask(file.name, sentences1, sentences2)


KIND = Kind("positive pairs", "columns anchor, positive; or sentence1, sentence2 alone", single_files(_read))
