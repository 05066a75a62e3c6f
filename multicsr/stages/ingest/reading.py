"""Pass 1: convert each file to candidates, in chunks sorted by id, and to rejects.

Checks that need a single record are made here. One task streams a file, or a part of a large file of lines.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multicsr.config import Config, IngestConfig
from multicsr.execution.shard_report import ShardReport, count_reasons
from multicsr.execution.stage_runner import commit, finished_report, mark_of, write_rejects
from multicsr.rows import SENTENCE, UNDETERMINED, rejects, row_ids
from multicsr.stages.ingest.chunks import CHUNK_ROWS, has_html, read_in_chunks
from multicsr.stages.ingest.digests import Unchanged
from multicsr.stages.ingest.file_parts import FilePart
from multicsr.stages.ingest.files import PLACE_DIGITS, InputFile
from multicsr.stages.ingest.filters import examine, has_text, shown
from multicsr.stages.ingest.findings import REDACTED, counters_of
from multicsr.stages.ingest.html_text import plain_texts, reject_left_markup
from multicsr.stages.ingest.plain_text import plain_test
from multicsr.stages.ingest.record import Placed
from multicsr.stages.ingest.redaction import Redactor
from multicsr.storage.id_numbers import hex_ids, order_by_id, words_of
from multicsr.storage.manifest import add_digests, rows_digest
from multicsr.storage.store import FileEntry, Store

PART_ROWS = 5 * CHUNK_ROWS
"""Records in a part of a large file: half a second of work."""


@dataclass(frozen=True)
class FileShard:
    """One input file, or a part of one, as a shard of pass 1."""

    file: InputFile
    digest: str | None
    """Digest of the bytes, if it is known without reading them; otherwise None."""
    part: FilePart | None = None
    """The part to read, of a file whose digest is known; None: the whole file."""

    @property
    def identity(self) -> str:
        """Return the identity of the file; while its digest is unknown, a placeholder made from its state."""
        return file_identity(self.file.place, self.digest or f"unknown {self.file.state}")

    @property
    def key(self) -> str:
        """Return the identity of the file; of a part with the number of its first chunk."""
        return self.identity if self.part is None else chunk_key(self.identity, self.first_chunk)

    @property
    def first_chunk(self) -> int:
        """Return the number of the first chunk that is read."""
        return 0 if self.part is None else self.part.first // CHUNK_ROWS


def chunk_key(identity: str, number: int) -> str:
    """Return the name of the files of one chunk of a file."""
    return f"{identity}-{number:05d}"


def file_identity(place: str, digest: str) -> str:
    """Return the identity of a file's records: the place (name and format) followed by the digest."""
    return f"{place}{digest}"


def split_identity(identity: str) -> tuple[str, str]:
    """Return the place and the digest that `file_identity` joined."""
    return identity[:PLACE_DIGITS], identity[PLACE_DIGITS:]


def reader(config: Config, store: Store, folder: str) -> Callable[[FileShard], ShardReport]:
    """Return the function that does pass 1 for one file or one part of a file.

    Candidates are written to `folder`/candidates and stay there for the next ingest.
    """

    def read(shard: FileShard) -> ShardReport:
        started = time.perf_counter()
        part = shard.part
        unchanged = Unchanged(shard.file) if part is None else part.unchanged
        identity = file_identity(shard.file.place, unchanged.digest)
        if shard.digest is None and (done := finished_report(store, folder, identity)):
            return done
        candidates: list[FileEntry] = []
        reject_files: list[FileEntry] = []
        rejected: Counter[str] = Counter()
        digests: list[str] = []
        redact = Redactor(config.ingest.redact)
        chunks = read_chunks(config, shard.file, redact, part=part)
        for number, (rows, bad) in enumerate(chunks, shard.first_chunk):
            key = chunk_key(identity, number)
            candidates.append(store.write_table(f"{folder}/candidates/{key}.parquet", rows))
            reject_files += write_rejects(store, folder, key, bad)
            digests.append(rows_digest(rows["row_id"]))
            rejected.update(count_reasons(bad))
        unchanged.check()
        num_candidates = sum(entry.rows for entry in candidates)
        num_bytes = shard.file.bytes if part is None else part.stop - part.start
        report = ShardReport(
            key=identity if part is None else shard.key,
            rows_in=num_candidates + sum(entry.rows for entry in reject_files),
            rows_out=num_candidates,
            rejected=dict(rejected),
            rows_digest=add_digests(digests),
            seconds=time.perf_counter() - started,
            counters={"bytes": float(num_bytes), **counters_of(REDACTED, redact.counts)},
            files=candidates,
            reject_files=reject_files,
        )
        return commit(store, folder, report)

    return read


def join_parts(store: Store, folder: str, identity: str, parts: Sequence[ShardReport]) -> ShardReport:
    """Commit and return the report of a file of which all parts were read, and delete those of the parts."""
    parts = sorted(parts, key=lambda part: part.key)
    rejected: Counter[str] = Counter()
    counters: Counter[str] = Counter()
    for part in parts:
        rejected.update(part.rejected)
        counters.update(part.counters)
    report = ShardReport(
        key=identity,
        rows_in=sum(part.rows_in for part in parts),
        rows_out=sum(part.rows_out for part in parts),
        rejected=dict(rejected),
        rows_digest=add_digests([part.rows_digest for part in parts]),
        seconds=sum(part.seconds for part in parts),
        counters=dict(counters),
        files=[entry for part in parts for entry in part.files],
        reject_files=[entry for part in parts for entry in part.reject_files],
    )
    commit(store, folder, report)
    store.delete_files([mark_of(folder, part.key) for part in parts])
    return report


def read_chunks(
    config: Config,
    file: InputFile,
    redact: Redactor,
    *,
    part: FilePart | None = None,
    most: int | None = None,
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the candidates, sorted by id, and the rejects of every `CHUNK_ROWS` records.

    Plain texts are candidates as they are; only the others are made records, and examined one by one.

    Args:
        config: the configuration of the run.
        file: the file to read.
        redact: replaces personal data.
        part: the part of the file to read; None: all of it.
        most: maximum number of records, or of sentences of documents; None: all.
    """
    # A detected language comes later (`sharding.py`), so that the ids do not depend on the detector.
    language = UNDETERMINED if config.ingest.language == "auto" else config.ingest.language
    is_plain = plain_test(config, has_html=has_html(config, file))
    for chunk in read_in_chunks(config, file, part, most):
        raw = chunk.raw()
        is_plain_N = is_plain(raw)
        converted = convert_markup(config, file, chunk.placed(np.flatnonzero(~is_plain_N).tolist()))
        good, bad = _examine_all(converted, config.ingest, redact)
        texts = [*compress(raw, is_plain_N.tolist()), *(record.text.encode() for _, record in good)]
        positions = np.array([position for position, _ in good], np.int64)
        positions_N = np.concatenate([chunk.positions_N[is_plain_N], positions])
        yield _candidates(texts, positions_N, language, file.name), _rejects(bad, language, file.name)


def convert_markup(config: Config, file: InputFile, placed: Iterator[Placed]) -> Iterator[Placed]:
    """Yield records with their markup converted to text, or rejected for what is left of it."""
    if not has_html(config, file):
        return placed
    if not config.input.documents:  # which are converted before they are split
        placed = plain_texts(placed, always=config.input.html is True)
    return reject_left_markup(placed)


def _examine_all(
    placed: Iterable[Placed], config: IngestConfig, redact: Redactor
) -> tuple[list[Placed], list[Placed]]:
    """Return the records with normalised texts that pass the filters, and the rejects as they are stored."""
    good: list[Placed] = []
    bad: list[Placed] = []
    for position, record in placed:
        examined = examine(record, config, redact)
        if examined.reason is None:
            good.append(Placed(position, examined))
        else:
            bad.append(Placed(position, shown(examined, redact)))
    return good, bad


def _candidates(
    texts: Sequence[bytes], positions_N: NDArray[np.int64], language: str, source: str
) -> pa.Table:
    """Return the candidates, sorted by id and position."""
    words_N2 = words_of(row_ids(texts, language))
    order_N = order_by_id(words_N2, positions_N)
    columns = [
        hex_ids(words_N2[order_N]),
        pa.array(texts, pa.binary()).cast(pa.string()).take(pa.array(order_N)),
        pa.repeat(language, len(texts)),
        pa.repeat(source, len(texts)),
        positions_N[order_N],
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
