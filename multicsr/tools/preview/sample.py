"""Sample of a corpus: some records of some of its files, and the sentences among them with the smallest ids.

The same files always give the same sample. Row ids are hashes of texts, so that sentences chosen by them are
a random sample of the records that were read.
"""

from dataclasses import dataclass

import pyarrow as pa

from multicsr.config import Config
from multicsr.rows import SENTENCE, rejects
from multicsr.stages.evaluate.leaks import labelled_texts
from multicsr.stages.ingest.files import InputFile, find_files
from multicsr.stages.ingest.leaks import Leaks, find_leaks
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.stages.ingest.reading import read_chunks
from multicsr.stages.ingest.redaction import Redactor
from multicsr.stages.ingest.sharding import row_filter

_RECORDS = 5_000
"""Records that are read of a corpus; of documents, sentences. They take some seconds, whatever its size."""
_FILES = 20
"""Maximum number of files that are read; they are spread evenly over all files by name."""


@dataclass(frozen=True)
class CorpusSample:
    """Records of a corpus that were read and filtered as ingest does it."""

    sentences: pa.Table
    """SENTENCE rows that passed the filters, sorted by id."""
    usable: pa.Table
    """Those of `sentences` that a run gives to the LLM: with `evaluate.drop_leaks`, those that no labelled
    set has."""
    leaks: Leaks
    """Those of `sentences` that labelled sets have."""
    rejects: pa.Table
    """Rejects, in the schema of `rows.rejects(SENTENCE)`."""
    num_files: int
    """Number of files that records are from."""
    files_in_all: int
    is_whole: bool
    """True if these are all records of the corpus."""
    known: KnownTexts | None
    """Texts of the labelled sets; None if there are none."""
    left_out: list[str]
    """Lines of text about files that are not read."""


def sample_corpus(config: Config) -> CorpusSample:
    """Read the first records of files that are spread over the corpus.

    Near-duplicates are not looked for: among so few records there are none.

    Raises:
        ConfigError: the configured files, formats or columns do not exist.
        RunError: a file cannot be read.
    """
    found = find_files(config.input, config.s3, config.ingest.language)
    chosen = spread(found.files)
    found_rows, bad = [SENTENCE.empty_table()], [rejects(SENTENCE).empty_table()]
    redact = Redactor(config.ingest.redact)
    most, is_whole = _RECORDS // len(chosen), len(chosen) == len(found.files)
    for file in chosen:
        num_before = sum(map(len, [*found_rows, *bad]))
        for rows, rejected in read_chunks(config, file, redact, most=most):
            found_rows.append(rows)
            bad.append(rejected)
        is_whole &= sum(map(len, [*found_rows, *bad])) - num_before < most
    kept, rejected = row_filter(config.ingest)(pa.concat_tables(found_rows), {})
    known = labelled_texts(config)
    usable, leaks = _without_leaks(config, kept, known)
    return CorpusSample(
        sentences=kept,
        usable=usable,
        leaks=leaks,
        rejects=pa.concat_tables([*bad, rejected]),
        num_files=len(chosen),
        files_in_all=len(found.files),
        is_whole=is_whole,
        known=known,
        left_out=[*found.lines()],
    )


def _without_leaks(config: Config, sentences: pa.Table, known: KnownTexts | None) -> tuple[pa.Table, Leaks]:
    """Return the sentences that a run gives to the LLM, and those that labelled sets have."""
    if known is None:
        return sentences, Leaks()
    leaks, details = find_leaks(known, sentences["text"].to_pylist())
    if not config.evaluate.drop_leaks:
        return sentences, leaks
    return sentences.filter(pa.array([detail is None for detail in details], pa.bool_())), leaks


def spread(files: list[InputFile]) -> list[InputFile]:
    """Return at most `_FILES` files at equal distances, the first one among them."""
    number = min(len(files), _FILES)
    return [files[place * len(files) // number] for place in range(number)]
