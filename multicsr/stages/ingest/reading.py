"""Pass 1: convert each file to candidates, in chunks sorted by id, and to rejects.

Checks that need a single record are made here. One task streams one file, so a single file is read by one
core (some 100,000 short sentences a second). Everything after this pass is parallel for any number of files.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from multicsr.config import Config
from multicsr.execution.shard_report import ShardReport, count_reasons
from multicsr.execution.stage_runner import commit, finished_report, write_rejects
from multicsr.rows import SENTENCE, rejects, row_id
from multicsr.stages.ingest.digests import Unchanged
from multicsr.stages.ingest.files import PLACE_DIGITS, InputFile
from multicsr.stages.ingest.filters import examine, sentence_splitter
from multicsr.stages.ingest.readers import read_records
from multicsr.stages.ingest.record import Record
from multicsr.storage.manifest import add_digests, rows_digest
from multicsr.storage.store import FileEntry, Store

CHUNK_ROWS = 50_000
"""Number of records in memory at once."""
_SHOWN_CHARACTERS = 1000
"""Characters that are kept of a rejected record, enough to recognise it."""


class Placed(NamedTuple):
    """A record and its 0-based number in the file; all sentences of a document have the document's number."""

    position: int
    record: Record


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
        for number, (rows, bad) in enumerate(read_chunks(config, shard.file)):
            key = f"{identity}-{number:05d}"
            candidates.append(store.write_table(f"{folder}/candidates/{key}.parquet", rows))
            reject_files += write_rejects(store, folder, key, bad)
            digests.append(rows_digest(rows["row_id"]))
            for reason, count in count_reasons(bad).items():
                rejected[reason] = rejected.get(reason, 0) + count
        unchanged.check()
        num_candidates = sum(entry.rows for entry in candidates)
        report = ShardReport(
            key=identity,
            rows_in=num_candidates + sum(entry.rows for entry in reject_files),
            rows_out=num_candidates,
            rejected=rejected,
            rows_digest=add_digests(digests),
            seconds=time.perf_counter() - started,
            counters={"bytes": float(shard.file.bytes)},
            files=candidates,
            reject_files=reject_files,
        )
        return commit(store, folder, report)

    return read


def read_chunks(
    config: Config, file: InputFile, most: int | None = None
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the candidates, sorted by id, and the rejects of every `CHUNK_ROWS` records.

    Args:
        config: the configuration of the run.
        file: the file to read.
        most: maximum number of records, or of sentences of documents; None: all.
    """
    placed = islice(_placed(config, file), most)
    while chunk := list(islice(placed, CHUNK_ROWS)):
        good: list[Placed] = []
        bad: list[Placed] = []
        for position, record in chunk:
            examined = examine(record, config.ingest)
            (bad if examined.reason else good).append(Placed(position, examined))
        language = config.ingest.language
        yield _candidates(good, language, file.name).sort_by("row_id"), _rejects(bad, language, file.name)


def _placed(config: Config, file: InputFile) -> Iterator[Placed]:
    given = config.input
    records = enumerate(
        read_records(file, given.column, header=given.header, language=config.ingest.language)
    )
    if not config.input.documents:
        return map(Placed._make, records)
    split = sentence_splitter(config.ingest.language)
    return (Placed(position, part) for position, document in records for part in split(document))


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
        [record.text[:_SHOWN_CHARACTERS] for _, record in placed],
        pa.repeat(language, len(placed)),
        pa.repeat(source, len(placed)),
        [position for position, _ in placed],
        [record.reason for _, record in placed],
        [record.detail for _, record in placed],
    ]
    return pa.table(columns, schema=rejects(SENTENCE))
