"""Pass 2: candidates by range of ids to files, every sentence once; what needs many records, or time."""

import time
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.config import IngestConfig
from multicsr.ingest.duplicates import IdRange, drop_duplicates, refuse
from multicsr.ingest.filters import language_filter
from multicsr.ingest.near_duplicates import losers_of
from multicsr.manifest import rows_digest
from multicsr.ray_stage import commit, write_rejects
from multicsr.rows import Reason
from multicsr.store import Store
from multicsr.tally import ShardReport, count_reasons


def sharder(
    config: IngestConfig, store: Store, folder: str, candidates: Sequence[str]
) -> Callable[[IdRange], ShardReport]:
    """What pass 2 does with one range of ids. Raises ConfigError when the language filter cannot work."""
    foreign = language_filter(config.language) if config.language_filter else None

    def shard(ids: IdRange) -> ShardReport:
        started = time.perf_counter()
        found = ids.read(store, candidates)
        rows, bad = drop_duplicates(found)
        if config.near_duplicates:
            losers = losers_of(store, folder, ids)
            alike = [losers.get(row_id) for row_id in rows["row_id"].to_pylist()]
            rows, bad = _drop(rows, bad, Reason.NEAR_DUPLICATE, alike)
        if foreign is not None:
            rows, bad = _drop(rows, bad, Reason.WRONG_LANGUAGE, foreign(rows["text"].to_pylist()))
        files = [
            store.write_table(f"{folder}/rows/part-{number:06d}.parquet", part)
            for number, part in ids.files(rows)
        ]
        report = ShardReport(
            key=ids.key,
            rows_in=found.num_rows,
            rows_out=rows.num_rows,
            rejected=count_reasons(bad),
            rows_digest=rows_digest(rows["row_id"]),
            seconds=time.perf_counter() - started,
            counters={},
            files=files,
            reject_files=write_rejects(store, folder, ids.key, bad),
        )
        return commit(store, folder, report)

    return shard


def _drop(
    rows: pa.Table, bad: pa.Table, reason: Reason, details: Sequence[str | None]
) -> tuple[pa.Table, pa.Table]:
    """(rows without a detail, `bad` and those with one)."""
    detail = pa.array(details, pa.string())
    refused = refuse(rows.filter(pc.is_valid(detail)), reason, detail.drop_null())
    return rows.filter(pc.is_null(detail)), pa.concat_tables([bad, refused])
