"""Pass 2: write the candidates of each range of ids to files, every sentence once.

Checks that need many records (duplicates) or much time (the language) are made here.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.config import IngestConfig
from multicsr.execution.shard_report import ShardReport, count_reasons
from multicsr.execution.stage_runner import commit, write_rejects
from multicsr.rows import SENTENCE, Reason
from multicsr.stages.ingest.duplicates import IdRange, drop_duplicates, reject
from multicsr.stages.ingest.findings import LANGUAGE, counters_of
from multicsr.stages.ingest.language_detection import language_filter, language_identifier
from multicsr.stages.ingest.near_duplicates import losers_of
from multicsr.storage.manifest import rows_digest
from multicsr.storage.store import FileEntry, Store


def sharder(
    config: IngestConfig,
    store: Store,
    folder: str,
    candidates: Sequence[FileEntry],
    near: Sequence[FileEntry] = (),
) -> Callable[[IdRange], ShardReport]:
    """Return the function that does pass 2 for one range of ids.

    Args:
        config: settings of ingest.
        store: the store to read from and write to.
        folder: folder of the artifact.
        candidates: files that pass 1 wrote.
        near: files with the near-duplicates, if `near_duplicates` is set.

    Raises:
        ConfigError: the language filter or the identifier cannot be created.
    """
    keep_wanted = row_filter(config)

    def shard(ids: IdRange) -> ShardReport:
        started = time.perf_counter()
        found = ids.read(store, candidates)
        losers = losers_of(store, near, ids) if config.near_duplicates else {}
        rows, bad = keep_wanted(found, losers)
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
            counters=_languages_of(rows) if config.language == "auto" else {},
            files=files,
            reject_files=write_rejects(store, folder, ids.key, bad),
        )
        return commit(store, folder, report)

    return shard


def row_filter(
    config: IngestConfig,
) -> Callable[[pa.Table, Mapping[str, str]], tuple[pa.Table, pa.Table]]:
    """Return the function that splits all candidates of a range of ids into rows and rejects.

    Its second argument has the detail of each near-duplicate, by row id. With `language: auto` the rows get
    their language.

    Raises:
        ConfigError: the language filter or the identifier cannot be created.
    """
    foreign = language_filter(config.language) if config.language_filter else None
    identify = language_identifier(config.languages) if config.language == "auto" else None

    def keep_wanted(found: pa.Table, losers: Mapping[str, str]) -> tuple[pa.Table, pa.Table]:
        rows, bad = drop_duplicates(found)
        if losers:
            alike = [losers.get(row_id) for row_id in rows["row_id"].to_pylist()]
            rows, bad = _drop(rows, bad, Reason.NEAR_DUPLICATE, alike)
        if foreign is not None:
            rows, bad = _drop(rows, bad, Reason.WRONG_LANGUAGE, foreign(rows["text"].to_pylist()))
        if identify is not None:
            tags = pa.array(identify(rows["text"].to_pylist()), pa.string())
            rows = rows.set_column(rows.schema.get_field_index("language"), SENTENCE.field("language"), tags)
        return rows, bad

    return keep_wanted


def _languages_of(rows: pa.Table) -> dict[str, float]:
    """Return the counters of rows by language."""
    return counters_of(LANGUAGE, Counter(rows["language"].to_pylist()))


def _drop(
    rows: pa.Table, bad: pa.Table, reason: Reason, details: Sequence[str | None]
) -> tuple[pa.Table, pa.Table]:
    """Split rows by whether they have a detail; a detail means that the row is rejected.

    Returns:
        The rows without a detail, and `bad` with the other rows appended as rejects.
    """
    detail = pa.array(details, pa.string())
    rejected = reject(rows.filter(pc.is_valid(detail)), reason, detail.drop_null())
    return rows.filter(pc.is_null(detail)), pa.concat_tables([bad, rejected])
