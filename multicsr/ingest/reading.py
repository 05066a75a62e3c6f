"""Pass 1: each file to candidates, in chunks sorted by id, and to rejects; what needs one record alone.

One task streams one file, so a single file is read by one core (some 100,000 short sentences a second);
everything after this pass is parallel whatever the number of files.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from multicsr.config import Config
from multicsr.ingest.files import InputFile, file_identity
from multicsr.ingest.filters import examine, sentence_splitter
from multicsr.ingest.readers import Record, read_records
from multicsr.manifest import add_digests, rows_digest
from multicsr.ray_stage import commit, write_rejects
from multicsr.rows import SENTENCE, rejects, row_id
from multicsr.store import FileEntry, Store
from multicsr.tally import ShardReport, count_reasons

CHUNK_ROWS = 50_000
"""Records in memory at once."""
_SHOWN_CHARACTERS = 1000
"""Of a rejected record: enough to see what it is."""


class Placed(NamedTuple):
    """A record and its 0-based number in the file; sentences of a document share the document's."""

    position: int
    record: Record


@dataclass(frozen=True)
class FileShard:
    """One input file, as a shard of pass 1."""

    file: InputFile

    @property
    def key(self) -> str:
        return file_identity(self.file.facts)


def reader(config: Config, store: Store, folder: str) -> Callable[[FileShard], ShardReport]:
    """What pass 1 does with one file. Candidates go to `folder`/candidates and stay for the next ingest."""

    def read(shard: FileShard) -> ShardReport:
        started = time.perf_counter()
        candidates: list[FileEntry] = []
        refused: list[FileEntry] = []
        rejected: dict[str, int] = {}
        digests: list[str] = []
        for number, (rows, bad) in enumerate(_chunks(config, shard.file)):
            key = f"{shard.key}-{number:05d}"
            candidates.append(store.write_table(f"{folder}/candidates/{key}.parquet", rows))
            refused += write_rejects(store, folder, key, bad)
            digests.append(rows_digest(rows["row_id"]))
            for reason, count in count_reasons(bad).items():
                rejected[reason] = rejected.get(reason, 0) + count
        num_candidates = sum(entry.rows for entry in candidates)
        report = ShardReport(
            key=shard.key,
            rows_in=num_candidates + sum(entry.rows for entry in refused),
            rows_out=num_candidates,
            rejected=rejected,
            rows_digest=add_digests(digests),
            seconds=time.perf_counter() - started,
            counters={"bytes": float(shard.file.bytes)},
            files=candidates,
            reject_files=refused,
        )
        return commit(store, folder, report)

    return read


def _chunks(config: Config, file: InputFile) -> Iterator[tuple[pa.Table, pa.Table]]:
    """(candidates sorted by id, rejects) of every `CHUNK_ROWS` records."""
    placed = _placed(config, file)
    while chunk := list(islice(placed, CHUNK_ROWS)):
        good: list[Placed] = []
        bad: list[Placed] = []
        for position, record in chunk:
            seen = examine(record, config.ingest)
            (bad if seen.reason else good).append(Placed(position, seen))
        language = config.ingest.language
        yield _candidates(good, language, file.name).sort_by("row_id"), _rejects(bad, language, file.name)


def _placed(config: Config, file: InputFile) -> Iterator[Placed]:
    records = enumerate(read_records(file, config.input.column))
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
