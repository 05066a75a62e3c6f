"""Leaks: rows of the corpus that labelled sets have too, counted and shown.

An encoder that was trained on a sentence of an evaluation set is measured on what it has seen.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from multicsr.observability.progress import Progress
from multicsr.stages.ingest.findings import amounts_of, counters_of
from multicsr.stages.ingest.overlap import KnownTexts, Match

LEAKED_EXACTLY = "leaked_exactly_"
"""Beginning of the names of the counters of rows that a set has, by set."""
LEAKED_NEARLY = "leaked_nearly_"
"""Beginning of the names of the counters of rows that a set has with one word changed, by set."""
LEAKED = "leaked"
"""Name of the counter of rows that any set has."""
_log = logging.getLogger(__name__)
_SAMPLES = 3
"""Number of samples that are shown."""
_SETS = 6
"""Number of sets that are named in a line."""


@dataclass(frozen=True)
class LeakSample:
    """A text of the corpus beside the text of a labelled set that it equals."""

    text: str
    match: Match
    name: str
    """Name of the set."""

    def __str__(self) -> str:
        """Return both texts as one line."""
        kind = "is" if self.match.is_exact else "is one word from"
        return f"{self.text!r} {kind} {self.match.known!r} of {self.name}"


@dataclass(frozen=True)
class Leaks:
    """The rows of some files that labelled sets have too."""

    num_rows: int = 0
    """Number of rows that were looked at."""
    num_leaked: int = 0
    """Number of rows of which a set has a text."""
    exactly: Counter[str] = field(default_factory=Counter)
    """Number of rows of which each set has a text, case and punctuation aside."""
    nearly: Counter[str] = field(default_factory=Counter)
    """Number of other rows of which each set has a text with one word changed, inserted or removed."""
    samples: tuple[LeakSample, ...] = ()

    def __add__(self, other: "Leaks") -> "Leaks":
        """Return the leaks of the rows of both."""
        return Leaks(
            self.num_rows + other.num_rows,
            self.num_leaked + other.num_leaked,
            self.exactly + other.exactly,
            self.nearly + other.nearly,
            (self.samples + other.samples)[:_SAMPLES],
        )

    def counters(self) -> dict[str, float]:
        """Return the counters of a manifest; none if no row leaks."""
        by_set = counters_of(LEAKED_EXACTLY, self.exactly) | counters_of(LEAKED_NEARLY, self.nearly)
        return by_set | {LEAKED: float(self.num_leaked)} if self.num_leaked else {}


def report_leaks(
    stage: str,
    rows: str,
    counters: Mapping[str, float],
    is_dropped: bool,
    progress: Progress,
    samples: Sequence[LeakSample] = (),
    fate: str = "are rejected as leaked",
) -> None:
    """Print the number of leaked rows, the sets that have them, and samples; nothing if no row leaks.

    Args:
        stage: name of the stage that reads the rows.
        rows: number and name of all rows, such as `3,300 premises`.
        counters: from `Leaks.counters`.
        is_dropped: True if the rows are rejected; otherwise the line is a warning.
        progress: receives the line if the rows are rejected.
        samples: samples of the rows.
        fate: what becomes of dropped rows, for the message.
    """
    if not counters.get(LEAKED):
        return
    line = f"{counters[LEAKED]:,.0f} of {rows} are in labelled data: {', '.join(sets_of(counters))}"
    line = "; ".join([line, *map(str, samples)])
    if is_dropped:
        progress.announce(f"{line}; they {fate}")
    else:
        _log.warning("%s: %s; --drop-leaks leaves them out", stage, line)


def find_leaks(known: KnownTexts, *columns: Sequence[str]) -> tuple[Leaks, list[str | None]]:
    """Look for R rows in labelled sets.

    Args:
        known: the texts of the sets.
        columns: columns of the rows; a row leaks if one of its texts does.

    Returns:
        The leaks, and for each row its sets with the texts, or None if it does not leak.
    """
    rows: list[dict[str, LeakSample]] = [{} for _ in columns[0]]
    for texts in columns:
        for row, text, found in zip(rows, texts, known.find(texts), strict=True):
            for name, match in found.items():
                if name not in row or match.is_exact > row[name].match.is_exact:
                    row[name] = LeakSample(text, match, name)
    leaked = [row for row in rows if row]
    exactly, nearly = (
        Counter(name for row in leaked for name, sample in row.items() if sample.match.is_exact is is_exact)
        for is_exact in (True, False)
    )
    samples = tuple(next(iter(row.values())) for row in leaked[:_SAMPLES])
    leaks = Leaks(len(rows), len(leaked), exactly, nearly, samples)
    return leaks, ["; ".join(map(str, row.values())) or None for row in rows]


def leak_lines(counters: Mapping[str, float]) -> Iterator[str]:
    """Yield a line on the rows that labelled sets have, from the counters of a manifest, if there are any."""
    if counters.get(LEAKED):
        yield f"rows that labelled data have too: {counters[LEAKED]:,.0f} ({', '.join(sets_of(counters))})"


def sets_of(counters: Mapping[str, float]) -> Iterator[str]:
    """Yield the sets that counters of a manifest name, each with the rows that it has; then an ellipsis."""
    exactly, nearly = amounts_of(LEAKED_EXACTLY, counters), amounts_of(LEAKED_NEARLY, counters)
    totals = Counter(exactly) + Counter(nearly)
    for name, rows in totals.most_common(_SETS):
        near = f" ({nearly[name]:,} with one word changed)" if name in nearly else ""
        yield f"{name} {rows:,}{near}"
    if len(totals) > _SETS:
        yield f"and {len(totals) - _SETS} more"
