"""The labelled premises that may be shown to the LLM, one triplet for each.

They are read into the memory of the driver, which grows with the labelled files, not with the corpus.
"""

from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from multicsr.config import DemonstrationsConfig, IngestConfig
from multicsr.errors import ConfigError
from multicsr.hashing import checksum
from multicsr.rows import LABELLED, labelled_row_id
from multicsr.stages.generate.comparison import comparable
from multicsr.stages.ingest.leaks import Leaks, find_leaks
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.stages.ingest.redaction import Redactor
from multicsr.stages.ingest.triplet_files import LabelledTriplet, readable_triplets
from multicsr.stages.ingest.words import count_words

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
    num_long: int = 0
    """Number of triplets that are left out because a text has more than `ingest.max_words` words."""

    def digest(self) -> str:
        """Return a hash of the texts, which depends on no order, name or format of the files."""
        return checksum("".join(self.rows["row_id"].to_pylist()).encode())


class _Triplet(NamedTuple):
    row_id: str
    text: str
    entailment: str
    contradiction: str


def read_labelled_premises(
    config: DemonstrationsConfig, ingest: IngestConfig, known: KnownTexts | None, *, drop_leaks: bool
) -> LabelledPremises:
    """Read the labelled triplets that have both hypotheses; of several for one premise, take the least id.

    Personal data are replaced as in the premises of the run, before anything else is done with the texts.

    Args:
        config: the settings of the demonstrations.
        ingest: settings of ingest: `redact` is applied, and texts above `max_words` are left out.
        known: texts of the labelled sets that are measured on; None: leaks are not looked for.
        drop_leaks: leave out triplets of which these sets have a text.

    Raises:
        ConfigError: a file is missing or holds no triplets, or none is left.
        RunError: a file cannot be read.
    """
    redact = Redactor(ingest.redact)
    read = (_redacted(row, redact) for file in config.triplets for row in readable_triplets(file, SETTING))
    triplets = {row.row_id: row for row in read if row is not None}
    if not triplets:
        raise ConfigError(f"{SETTING}: no triplet has a negative, so no prompt for a contradiction has one")
    long = [row_id for row_id, row in triplets.items() if max(map(count_words, row[1:])) > ingest.max_words]
    for row_id in long:
        del triplets[row_id]
    if not triplets:
        raise ConfigError(
            f"{SETTING}: all {len(long):,} triplets have a text of more than {ingest.max_words} words; give "
            "others, or raise ingest.max_words"
        )
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
    return LabelledPremises(rows.take(sorted(first.values())), leaks, len(long))


def _redacted(row: LabelledTriplet, redact: Redactor) -> _Triplet | None:
    """Return a triplet without personal data; None if it has no negative, or two equal texts without them."""
    if row.contradiction is None:
        return None
    texts = (redact(row.text), redact(row.entailment), redact(row.contradiction))
    if len({text.casefold() for text in texts}) < len(texts):
        return None
    return _Triplet(labelled_row_id(*texts), *texts)


def _from_last(texts: list[str]) -> list[tuple[int, str]]:
    """Return numbered texts from the last to the first, so that a dict keeps the first of equal ones."""
    return [*enumerate(texts)][::-1]
