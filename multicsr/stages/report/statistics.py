"""Score counts, prompt use and samples, computed in one pass over the tables of a run.

Memory does not grow with the number of rows.
"""

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from multicsr.hashing import checksum
from multicsr.rows import Reason

NUM_BINS = 50
"""Bins of a histogram of scores."""
NUM_CELLS = 25
"""Cells per axis of the heatmap of scores."""
_LONGEST = 400
"""Maximum characters of a displayed text."""


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, dtype=np.int64)


@dataclass
class ScoreCounts:
    """Rows per bin of a = score(premise, entailment) and b = score(premise, contradiction), in [0, 5]."""

    scorer: str
    """Name of the scorer of the counted score."""
    column: str
    """End of the names of its columns; rows of curation are counted by the score that decided, a and b."""
    kept_a: np.ndarray = field(default_factory=lambda: _zeros(NUM_BINS))
    kept_b: np.ndarray = field(default_factory=lambda: _zeros(NUM_BINS))
    rejected_a: np.ndarray = field(default_factory=lambda: _zeros(NUM_BINS))
    rejected_b: np.ndarray = field(default_factory=lambda: _zeros(NUM_BINS))
    cells_AB: np.ndarray = field(default_factory=lambda: _zeros(NUM_CELLS, NUM_CELLS))
    """Rows per cell of a (first index) and b (second index), kept and rejected ones together."""

    @property
    def num_rows(self) -> int:
        """Return the number of rows with both scores."""
        return int(self.cells_AB.sum())

    def add(self, table: pa.Table, kept: bool) -> None:
        """Count the rows that have both scores."""
        names = (f"entailment_{self.column}", f"contradiction_{self.column}")
        names = ("a", "b") if "a" in table.column_names else names
        a_N, b_N = (_floats(table[name]) for name in names)
        both_N = ~(np.isnan(a_N) | np.isnan(b_N))
        a_N, b_N = a_N[both_N], b_N[both_N]
        counts_a, counts_b = (self.kept_a, self.kept_b) if kept else (self.rejected_a, self.rejected_b)
        counts_a += np.histogram(a_N, NUM_BINS, (0, 5))[0]
        counts_b += np.histogram(b_N, NUM_BINS, (0, 5))[0]
        self.cells_AB += np.histogram2d(a_N, b_N, NUM_CELLS, ((0, 5), (0, 5)))[0].astype(np.int64)


Drawn = tuple[str, int]
"""Name of a prompt set, and index of an instruction in one of its pools."""


@dataclass
class PromptCounts:
    """Rows per prompt of the two pools and per omega."""

    entailment: dict[bool, Counter[Drawn]] = field(
        default_factory=lambda: {True: Counter(), False: Counter()}
    )
    """Kept or not -> drawn prompt -> number of rows."""
    contradiction: dict[bool, Counter[Drawn]] = field(
        default_factory=lambda: {True: Counter(), False: Counter()}
    )
    omegas: Counter[float] = field(default_factory=Counter)

    def add(self, table: pa.Table, kept: bool) -> None:
        """Count the rows for which a prompt was drawn."""
        sets = table["prompts"].to_pylist()
        for counts, column in (
            (self.entailment, "entailment_prompt"),
            (self.contradiction, "contradiction_prompt"),
        ):
            drawn = zip(sets, table[column].to_pylist(), strict=True)
            counts[kept].update((name, index) for name, index in drawn if index is not None)
        self.omegas.update(round(omega, 3) for omega in table["omega"].drop_null().to_pylist())


@dataclass
class LanguageCounts:
    """Sentences that reached generation and kept triplets, by the language of the row."""

    read: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    def add(self, table: pa.Table, kept: bool) -> None:
        """Count the rows."""
        languages = Counter(
            {item["values"]: item["counts"] for item in pc.value_counts(table["language"]).to_pylist()}
        )
        self.read.update(languages)
        if kept:
            self.kept.update(languages)


@dataclass(frozen=True)
class SampledRow:
    """A row to display; a field is None if the row was rejected before it was filled."""

    row_id: str | None
    text: str | None
    entailment: str | None
    contradiction: str | None
    a: float | None
    b: float | None
    swapped: bool
    detail: str | None


class Sample:
    """A random sample that depends only on the rows and the seed, not on the order of rows or on files.

    Of rows with the same id, which have the same text, it has one.
    """

    def __init__(self, size: int, seed: int, column: str) -> None:
        self._size, self._seed, self._column = size, seed, column
        self._rows: list[tuple[str, SampledRow]] = []

    def add(self, table: pa.Table) -> None:
        """Add rows as candidates for the sample."""
        columns = (table[name].to_pylist() for name in ("row_id", "source", "position"))
        first: dict[str, tuple[str, int]] = {}
        for index, identity in enumerate(zip(*columns, strict=True)):
            entry = (self._key(*identity), index)
            row_id = identity[0] or entry[0]
            first[row_id] = min(entry, first.get(row_id, entry))
        best = heapq.nsmallest(self._size, first.values())
        rows = table.take(pa.array([index for _, index in best], pa.int64())).to_pylist()
        entering = [(key, _sampled(row, self._column)) for (key, _), row in zip(best, rows, strict=True)]
        entries = sorted([*self._rows, *entering], key=lambda entry: entry[0], reverse=True)
        distinct = {row.row_id or key: (key, row) for key, row in entries}  # of equal ids, the least key
        self._rows = heapq.nsmallest(self._size, distinct.values(), key=lambda entry: entry[0])

    def rows(self) -> list[SampledRow]:
        """Return the sample, in random order."""
        return [row for _, row in self._rows]

    def _key(self, row_id: str | None, source: str | None, position: int | None) -> str:
        return checksum(f"{self._seed}:{row_id}:{source}:{position}".encode())


class ReasonSamples:
    """Small samples of the rejects of one stage, one per reason."""

    def __init__(self, size: int, seed: int, column: str) -> None:
        self._size, self._seed, self._column = size, seed, column
        self._samples: dict[str, Sample] = {}

    def add(self, table: pa.Table) -> None:
        """Add rejects as candidates for the samples of their reasons."""
        for reason in table["reason"].unique().to_pylist():
            chosen = table.filter(pc.equal(table["reason"], reason))
            if reason not in self._samples:
                self._samples[reason] = Sample(self._size, self._seed, self._column)
            self._samples[reason].add(chosen)

    def rows(self) -> Iterator[tuple[str, SampledRow]]:
        """Yield pairs (reason, row), with reasons in the order of `Reason`."""
        order = {str(reason): index for index, reason in enumerate(Reason)}
        for reason in sorted(self._samples, key=lambda reason: (order.get(reason, len(order)), reason)):
            for row in self._samples[reason].rows():
                yield reason, row


def _sampled(row: dict[str, object], column: str) -> SampledRow:
    def text(name: str) -> str | None:
        value = row.get(name)
        if not isinstance(value, str):
            return None
        return value if len(value) <= _LONGEST else f"{value[:_LONGEST]} ... ({len(value):,} characters)"

    def number(name: str) -> float | None:
        value = row.get(name)
        return value if isinstance(value, float) else None

    return SampledRow(
        row_id=text("row_id"),
        text=text("text"),
        entailment=text("entailment"),
        contradiction=text("contradiction"),
        a=number("a") if "a" in row else number(f"entailment_{column}"),
        b=number("b") if "b" in row else number(f"contradiction_{column}"),
        swapped=bool(row.get("swapped")),
        detail=text("detail"),
    )


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(), dtype=np.float64)
