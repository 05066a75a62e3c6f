"""The interface between the evaluation and the kinds of tasks that it knows.

A task holds its data. It names the texts that it needs, so that the evaluation encodes every text once per
encoder, whatever the number of tasks it occurs in, and it computes its metrics from the vectors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from multicsr.artifacts import FileRecord
from multicsr.stages.evaluate.similarity import Similarity


class Role(StrEnum):
    """The role of a text, which decides the prompt that the encoder puts before it."""

    SENTENCE = "sentence"
    """A text that is compared with others of its kind: `SentenceTransformer.encode`."""
    QUERY = "query"
    """A query of a search: `SentenceTransformer.encode_query`."""
    DOCUMENT = "document"
    """A document that is searched for: `SentenceTransformer.encode_document`."""


class Encode(Protocol):
    """A function from texts of one role to their vectors."""

    def __call__(self, texts: Sequence[str], role: Role = Role.SENTENCE, /) -> NDArray[np.float32]:
        """Return the vectors [N, D] of N texts, which need not have length 1.

        A task with many texts calls it with one block of them after another.
        """


class Score(FileRecord):
    """Result of one encoder on one task in one metric."""

    task: str
    kind: str
    """Kind of the task, such as `sts` or `retrieval`."""
    metric: str
    """Name and scale of the metric in `value`, such as `Spearman x 100`."""
    value: float
    num_rows: int
    """Number of examples that were measured: pairs, triplets, queries or sentences."""
    subsets: dict[str, float] = {}
    """Value of the metric on each subset of the examples alone, where it is defined."""
    low: float | None = None
    """Lower end of the interval of `value` at 95%; None: the value is no function of single examples."""
    high: float | None = None
    """Upper end of the interval."""
    similarity: Similarity | None = None
    """The encoder's own similarity, by which vectors were compared; None: the kind has no use for it."""


@dataclass(frozen=True)
class Examples:
    """The parts of a score that belong to single examples, for intervals and for paired tests.

    Two encoders measured on one task have the same examples in the same order.
    """

    statistic: str
    """Name of the statistic of the rows: `mean` of the only column, `share` of ones in it, `spearman` of two
    columns (similarity, human score), or another key of `statistics.STATISTICS`."""
    value_NK: NDArray[np.float64]
    """Values of each example."""
    scale: float = 1.0
    """Factor from the statistic to the score, such as 100."""


@dataclass(frozen=True)
class Measurement:
    """A score with the examples that it was computed from."""

    score: Score
    examples: Examples | None
    """None: the score is no function of single examples, such as the value of a baseline without vectors."""


class Task(Protocol):
    """Labelled data of one kind, with the metrics of that kind."""

    @property
    def name(self) -> str:
        """Return the name of the task, which is unique in an evaluation."""

    @property
    def kind(self) -> str:
        """Return the kind of the task, such as `retrieval`."""

    def describe(self) -> str:
        """Return the size and what was chosen, such as `300 queries, 5,183 documents, split test`."""

    def texts(self) -> Mapping[Role, Iterable[str]]:
        """Return the texts to encode, by role; a text may occur several times."""

    def digest(self) -> str:
        """Return a hash of the kind and of all data of the task, without its name."""

    def measure(self, encode: Encode, similarity: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Measure an encoder.

        The first measurement is the main metric of the task, by which runs are compared and published.

        Args:
            encode: function from texts to vectors; it knows the texts of `texts` only.
            similarity: the encoder's own similarity. Kinds that are defined without one ignore it.

        Raises:
            RunError: the encoder returns vectors that are not finite.
        """
