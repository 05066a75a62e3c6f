"""The labelled premises that may be shown to the LLM, one triplet for each.

They are read into the memory of the driver, which grows with the labelled files, not with the corpus.
"""

from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from multicsr.config import DemonstrationsConfig
from multicsr.errors import ConfigError
from multicsr.hashing import checksum
from multicsr.rows import LABELLED
from multicsr.stages.generate.comparison import comparable
from multicsr.stages.ingest.leaks import Leaks, find_leaks
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.stages.ingest.triplet_files import readable_triplets

SETTING = "generate.demonstrations.triplets"
LABELLED_PREMISE = pa.schema(
    [
        *(
            LABELLED.field(name).with_nullable(False)
            for name in ("row_id", "text", "entailment", "contradiction")
        )
    ]
)
"""Schema of a labelled premise with its hypotheses; `row_id` is `labelled_row_id()`."""
_TEXTS = ("text", "entailment", "contradiction")


@dataclass(frozen=True)
class LabelledPremises:
    """Labelled premises with their hypotheses."""

    rows: pa.Table
    """LABELLED_PREMISE rows, sorted by id. No premise occurs twice, case, quotes and punctuation aside."""
    leaks: Leaks
    """Triplets of which a labelled set has a text."""

    def digest(self) -> str:
        """Return a hash of the texts, which depends on no order, name or format of the files."""
        return checksum("".join(self.rows["row_id"].to_pylist()).encode())


class _Triplet(NamedTuple):
    row_id: str
    text: str
    entailment: str
    contradiction: str


def read_labelled_premises(
    config: DemonstrationsConfig, known: KnownTexts | None, *, drop_leaks: bool
) -> LabelledPremises:
    """Read the labelled triplets that have both hypotheses; of several for one premise, take the least id.

    Args:
        config: the settings of the demonstrations.
        known: texts of the labelled sets that are measured on; None: leaks are not looked for.
        drop_leaks: leave out triplets of which these sets have a text.

    Raises:
        ConfigError: a file is missing or holds no triplets, or none is left.
        RunError: a file cannot be read.
    """
    triplets = {
        row.row_id: _Triplet(row.row_id, row.text, row.entailment, row.contradiction)
        for file in config.triplets
        for row in readable_triplets(file, SETTING)
        if row.contradiction is not None
    }
    if not triplets:
        raise ConfigError(f"{SETTING}: no triplet has a negative, so no prompt for a contradiction has one")
    rows = pa.Table.from_pylist(
        [triplets[row_id]._asdict() for row_id in sorted(triplets)], schema=LABELLED_PREMISE
    )
    leaks = Leaks()
    if known is not None:
        leaks, details = find_leaks(known, *(rows[name].to_pylist() for name in _TEXTS))
        if drop_leaks:
            rows = rows.filter(pa.array([detail is None for detail in details], pa.bool_()))
    if not len(rows):
        raise ConfigError(
            f"{SETTING}: evaluation data have a text of all {len(triplets):,} triplets; give others, or set "
            "evaluate.drop_leaks to false"
        )
    first = {comparable(text): number for number, text in _from_last(rows["text"].to_pylist())}
    return LabelledPremises(rows.take(sorted(first.values())), leaks)


def _from_last(texts: list[str]) -> list[tuple[int, str]]:
    """Return numbered texts from the last to the first, so that a dict keeps the first of equal ones."""
    return [*enumerate(texts)][::-1]
