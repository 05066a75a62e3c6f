"""Pass 1: convert each file to candidates, in chunks sorted by id, and to rejects.

Checks that need a single record are made here. One task streams one file, so a single file is read by one
core (some 100,000 short sentences a second). Everything after this pass is parallel for any number of files.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from multicsr.config import Config
from multicsr.execution.shard_report import ShardReport, count_reasons
from multicsr.execution.stage_runner import commit, finished_report, write_rejects
from multicsr.rows import SENTENCE, UNDETERMINED, rejects, row_id
from multicsr.stages.ingest.digests import Unchanged
from multicsr.stages.ingest.files import PLACE_DIGITS, InputFile
from multicsr.stages.ingest.filters import examine, has_text, sentence_splitter, shown
from multicsr.stages.ingest.findings import REDACTED, counters_of
from multicsr.stages.ingest.html_text import plain_texts, reject_left_markup
from multicsr.stages.ingest.readers import read_records
from multicsr.stages.ingest.record import Placed
from multicsr.stages.ingest.redaction import Redactor
from multicsr.storage.manifest import add_digests, rows_digest
from multicsr.storage.store import FileEntry, Store

CHUNK_ROWS = 50_000
"""Number of records in memory at once."""


@dataclass(frozen=True)
class FileShard:
    """One input file, as a shard of pass 1."""

    file: InputFile
    digest: str | None
    """Digest of the bytes, if it is known without reading them; otherwise None."""

    @property
    def key(self) -> str:
        """Return the identity of the file; while its digest is unknown, a placeholder made from its state."""
        return file_identity(self.file.place, self.digest or f"unknown {self.file.state}")


def file_identity(place: str, digest: str) -> str:
    """Return the identity of a file's records: the place (name and format) followed by the digest."""
    return f"{place}{digest}"


def split_identity(identity: str) -> tuple[str, str]:
    """Return the place and the digest that `file_identity` joined."""
    return identity[:PLACE_DIGITS], identity[PLACE_DIGITS:]


def reader(config: Config, store: Store, folder: str) -> Callable[[FileShard], ShardReport]:
    """Return the function that does pass 1 for one file.

    Candidates are written to `folder`/candidates and stay there for the next ingest.
    """

    def read(shard: FileShard) -> ShardReport:
        started = time.perf_counter()
        unchanged = Unchanged(shard.file)
        identity = file_identity(shard.file.place, unchanged.digest)
        if shard.digest is None and (done := finished_report(store, folder, identity)):
            return done
        candidates: list[FileEntry] = []
        reject_files: list[FileEntry] = []
        rejected: dict[str, int] = {}
        digests: list[str] = []
        redact = Redactor(config.ingest.redact)
        for number, (rows, bad) in enumerate(read_chunks(config, shard.file, redact)):
            key = f"{identity}-{number:05d}"
            candidates.append(store.write_table(f"{folder}/candidates/{key}.parquet", rows))
            reject_files += write_rejects(store, folder, key, bad)
            digests.append(rows_digest(rows["row_id"]))
            for reason, amount in count_reasons(bad).items():
                rejected[reason] = rejected.get(reason, 0) + amount
        unchanged.check()
        num_candidates = sum(entry.rows for entry in candidates)
        report = ShardReport(
            key=identity,
            rows_in=num_candidates + sum(entry.rows for entry in reject_files),
            rows_out=num_candidates,
            rejected=rejected,
            rows_digest=add_digests(digests),
            seconds=time.perf_counter() - started,
            counters={"bytes": float(shard.file.bytes), **counters_of(REDACTED, redact.counts)},
            files=candidates,
            reject_files=reject_files,
        )
        return commit(store, folder, report)

    return read


def read_chunks(
    config: Config, file: InputFile, redact: Redactor, most: int | None = None
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the candidates, sorted by id, and the rejects of every `CHUNK_ROWS` records.

    Args:
        config: the configuration of the run.
        file: the file to read.
        redact: replaces personal data.
        most: maximum number of records, or of sentences of documents; None: all.
    """
    placed = islice(_placed(config, file), most)
    # A detected language comes later (`sharding.py`), so that the ids do not depend on the detector.
    language = UNDETERMINED if config.ingest.language == "auto" else config.ingest.language
    while chunk := list(islice(placed, CHUNK_ROWS)):
        good: list[Placed] = []
        bad: list[Placed] = []
        for position, record in chunk:
            examined = examine(record, config.ingest, redact)
            if examined.reason is None:
                good.append(Placed(position, examined))
            else:
                bad.append(Placed(position, shown(examined, redact)))
        yield _candidates(good, language, file.name).sort_by("row_id"), _rejects(bad, language, file.name)


def _placed(config: Config, file: InputFile) -> Iterator[Placed]:
    given = config.input
    records = read_records(file, given.column, header=given.header, language=config.ingest.language)
    has_html = given.html is not False and file.format != "wikipedia"  # whose articles are text already
    if has_html:
        records = plain_texts(records, always=given.html is True)
    placed: Iterator[Placed] = map(Placed._make, enumerate(records))
    if given.documents:
        split = sentence_splitter(config.ingest.language)
        placed = (Placed(position, part) for position, document in placed for part in split(document))
    return reject_left_markup(placed) if has_html else placed


def _candidates(placed: Sequence[Placed], language: str, source: str) -> pa.Table:
    texts = [record.text for _, record in placed]
    columns = [
        [row_id(text, language) for text in texts],
        texts,
        pa.repeat(language, len(texts)),
        pa.repeat(source, len(texts)),
        [position for position, _ in placed],
    ]
    return pa.table(columns, schema=SENTENCE)


def _rejects(placed: Sequence[Placed], language: str, source: str) -> pa.Table:
    columns = [
        pa.nulls(len(placed), pa.string()),
        [record.text if has_text(record) else None for _, record in placed],
        pa.repeat(language, len(placed)),
        pa.repeat(source, len(placed)),
        [position for position, _ in placed],
        [record.reason for _, record in placed],
        [record.detail for _, record in placed],
    ]
    return pa.table(columns, schema=rejects(SENTENCE))
