"""Clustering: k-means on the vectors must find the groups of the sentences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import ConfigError
from multicsr.labelled_files import digest_of, read_lists, read_rows
from multicsr.stages.evaluate.kinds.means import mean_measurement
from multicsr.stages.evaluate.kinds.reader import DataFile, Kind, single_files
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Encode, Examples, Measurement, Role, Score
from multicsr.stages.evaluate.vectors import finite_vectors

SEED = 42
"""Seed of mteb."""
MIN_LABELS = 3
"""Labels of a table that is a task of clustering; with two it is one of transfer."""
_BATCH_SIZE = 500
"""Sentences in a step of mini-batch k-means, as in mteb."""


@dataclass(frozen=True)
class ClusteringTask:
    """One or several sets of sentences, each sentence with the name of its group."""

    name: str
    sentences: list[list[str]]
    """Sentences of each set."""
    groups: list[list[str]]
    """Group of each of these sentences."""
    kind = "clustering"

    def describe(self) -> str:
        """Implement `Task.describe`."""
        num_groups = len(set(chain.from_iterable(self.groups)))
        sets = f" in {len(self.sentences)} sets" if len(self.sentences) > 1 else ""
        return f"{sum(map(len, self.sentences)):,} sentences of {num_groups} groups{sets}"

    def texts(self) -> Mapping[Role, Iterator[str]]:
        """Implement `Task.texts`."""
        return {Role.SENTENCE: chain.from_iterable(self.sentences)}

    def digest(self) -> str:
        """Implement `Task.digest`."""
        return digest_of(self.kind, self)

    def measure(self, encode: Encode, _: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`: V-measure, times 100; with several sets, its mean over the sets.

        Clusters are those of mteb: one run of scikit-learn's `MiniBatchKMeans` with as many clusters as
        groups.
        """
        metric, sets = "V-measure x 100", zip(self.sentences, self.groups, strict=True)
        tables = [_clusters_and_groups(finite_vectors(texts, encode), groups) for texts, groups in sets]
        value_S = np.array([100 * v_measure(table_N2) for table_N2 in tables])
        if len(tables) > 1:
            subsets = {f"set {number}": float(value) for number, value in enumerate(value_S, start=1)}
            return [mean_measurement(self, metric, value_S, subsets)]
        score = Score(
            task=self.name, kind=self.kind, metric=metric, value=value_S[0], num_rows=len(tables[0])
        )
        return [Measurement(score, Examples("v_measure", tables[0], scale=100))]


def _clusters_and_groups(vectors_ND: NDArray[np.float32], groups: Sequence[str]) -> NDArray[np.float64]:
    """Return the number of the cluster that k-means finds and that of the group, [N, 2]."""
    from sklearn.cluster import MiniBatchKMeans

    names, group_N = np.unique(groups, return_inverse=True)
    kmeans = MiniBatchKMeans(len(names), batch_size=_BATCH_SIZE, n_init="auto", random_state=SEED)
    return np.stack([kmeans.fit(vectors_ND).labels_, group_N], axis=1).astype(np.float64)


def v_measure(table_N2: NDArray[np.float64]) -> float:
    """Compute the V-measure, in [0, 1], of N pairs of a cluster and a group."""
    from sklearn.metrics import v_measure_score

    return float(v_measure_score(table_N2[:, 1], table_N2[:, 0]))


def _read(file: DataFile) -> ClusteringTask | None:
    if file.columns.issuperset(("sentences", "labels")):
        sets = [values for _, values in read_lists(file.path, ("sentences", "labels"))]
    else:
        sets = _single_set(file)
    if not sets:
        return None
    for number, (texts, names) in enumerate(sets, start=1):
        if len(texts) != len(names):
            raise ConfigError(f"{file.path}, set {number}: {len(texts)} sentences, {len(names)} labels")
        if len(set(names)) < 2:
            raise ConfigError(f"{file.path}, set {number}: clustering needs sentences of two groups or more")
    return ClusteringTask(file.name, *([record[key] for record in sets] for key in (0, 1)))


def _single_set(file: DataFile) -> list[list[list[str]]]:
    """Return the sentences and groups of a table; nothing if it is no such table."""
    text = next((column for column in ("sentence", "text") if column in file.columns), None)
    group = next((column for column in ("cluster", "label") if column in file.columns), None)
    if text is None or group is None:
        return []
    rows = [values for _, values in read_rows(file.path, (text, group))]
    if group == "label" and len({name for _, name in rows}) < MIN_LABELS:
        return []
    return [[[row[key] for row in rows] for key in (0, 1)]]


KIND = Kind(
    "clustering",
    "columns cluster, sentence; or label, sentence in one file with three labels or more; or JSON lines with"
    " lists sentences, labels",
    single_files(_read),
)
