"""Pass 2: candidates by range of ids to shards, every sentence once.

Equal sentences have equal ids and so meet in one range. The one kept is the first by (source, position).
Where a range begins depends on the number of candidates alone, so shards do not depend on files, chunks or
workers.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from multicsr.config import IngestConfig
from multicsr.ingest.filters import language_filter
from multicsr.manifest import rows_digest
from multicsr.ray_stage import commit, write_rejects
from multicsr.rows import SENTENCE, Reason, rejects
from multicsr.store import Store
from multicsr.tally import ShardReport, count_reasons

RANGE_ROWS = 100_000
"""Candidates one task takes, which may be many shards: each task opens every chunk of pass 1."""
_FIRST = [("row_id", "ascending"), ("source", "ascending"), ("position", "ascending")]


@dataclass(frozen=True)
class IdRange:
    """Shards `first` to `stop` - 1 of `total`, which cut the space of ids evenly."""

    first: int
    stop: int
    total: int

    @property
    def key(self) -> str:
        return f"range-{self.first:06d}"

    def read(self, store: Store, folder: str) -> pa.Table:
        """All rows of a folder of files sorted by id that are in the range, in the order of `_FIRST`."""
        tables = [
            store.read_table(name, filters=_between(self.first, self.stop, self.total))
            for name in store.list(folder)
        ]
        return pa.concat_tables(tables).sort_by(_FIRST)

    def shards(self, rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        """The rows of each shard, with its number; `rows` sorted by id."""
        ids = rows["row_id"].to_numpy()
        cuts = np.searchsorted(ids, [_start(i, self.total) for i in range(self.first, self.stop)]).tolist()
        for number, begin, end in zip(range(self.first, self.stop), cuts, [*cuts[1:], len(ids)], strict=True):
            yield number, rows.slice(begin, end - begin)


def id_ranges(num_candidates: int, rows_per_shard: int) -> list[IdRange]:
    """Cut so many candidates into shards of about `rows_per_shard`, and the shards into tasks."""
    total = max(1, -(-num_candidates // rows_per_shard))
    step = max(1, RANGE_ROWS // rows_per_shard)
    return [IdRange(first, min(first + step, total), total) for first in range(0, total, step)]


def _start(number: int, total: int) -> str:
    """The least id of a shard; past the last shard, what is above every id."""
    return f"{(number << 128) // total:032x}" if number < total else "g"


def _between(first: int, stop: int, total: int) -> pc.Expression:
    row_id = pc.field("row_id")
    return (row_id >= _start(first, total)) & (row_id < _start(stop, total))


def deduplicator(config: IngestConfig, store: Store, folder: str) -> Callable[[IdRange], ShardReport]:
    """What pass 2 does with one range of ids. Raises ConfigError when the language filter cannot work."""
    foreign = language_filter(config.language) if config.language_filter else None

    def deduplicate(shard: IdRange) -> ShardReport:
        started = time.perf_counter()
        candidates = shard.read(store, f"{folder}/candidates")
        rows, bad = drop_duplicates(candidates)
        if foreign is not None:
            rows, more = _drop_foreign(rows, foreign)
            bad = pa.concat_tables([bad, more])
        files = [
            store.write_table(f"{folder}/rows/part-{number:06d}.parquet", part)
            for number, part in shard.shards(rows)
        ]
        report = ShardReport(
            key=shard.key,
            rows_in=candidates.num_rows,
            rows_out=rows.num_rows,
            rejected=count_reasons(bad),
            rows_digest=rows_digest(rows["row_id"]),
            seconds=time.perf_counter() - started,
            counters={},
            files=files,
            reject_files=write_rejects(store, folder, shard.key, bad),
        )
        return commit(store, folder, report)

    return deduplicate


def drop_duplicates(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """(first of each id, rejects of the others); `rows` in the order of id, source, position."""
    ids = rows["row_id"].to_numpy()
    is_first_N = np.ones(len(ids), dtype=bool)
    is_first_N[1:] = ids[1:] != ids[:-1]
    first_N = np.maximum.accumulate(np.where(is_first_N, np.arange(len(ids)), 0))
    kept = rows.take(first_N[~is_first_N])
    detail = pc.binary_join_element_wise(
        "same as ", kept["source"], ":", kept["position"].cast(pa.string()), ""
    )
    return rows.filter(is_first_N), refuse(rows.filter(~is_first_N), Reason.DUPLICATE, detail)


def _drop_foreign(
    rows: pa.Table, foreign: Callable[[Sequence[str]], list[str | None]]
) -> tuple[pa.Table, pa.Table]:
    found = pa.array(foreign(rows["text"].to_pylist()), pa.string())
    detail = pc.binary_join_element_wise("looks like ", found.drop_null(), "")
    return rows.filter(found.is_null()), refuse(rows.filter(found.is_valid()), Reason.WRONG_LANGUAGE, detail)


def refuse(rows: pa.Table, reason: Reason, detail: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Rows as rejects, all for one reason."""
    reasons = pa.repeat(pa.scalar(reason.value, pa.string()), rows.num_rows)
    return pa.table([*rows.columns, reasons, detail], schema=rejects(SENTENCE))
