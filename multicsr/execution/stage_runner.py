"""Execution of stages in pools of workers, shard by shard. Every input row is an output row or a reject.

Names of shards are sent to the workers, never rows. A worker reads a shard, processes it, and writes its
rows, its rejects and finally its report, which commits the shard. The driver adds up the reports.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Protocol, TypeVar

import pyarrow as pa
from pydantic import JsonValue, TypeAdapter

from multicsr.errors import DamagedFileError, RunError
from multicsr.execution.materialise import Artifact, materialise
from multicsr.execution.pool import Pool, map_items
from multicsr.execution.shard_report import ShardReport, StageTotals, count_reasons
from multicsr.observability.metrics import publish
from multicsr.observability.progress import Progress
from multicsr.rows import complete
from multicsr.rows import rejects as rejects_of
from multicsr.storage.collected import unused
from multicsr.storage.manifest import Contents, Manifest, add_digests, rows_digest
from multicsr.storage.store import FileEntry, Store

_log = logging.getLogger(__name__)
_report = TypeAdapter(ShardReport)


@dataclass(frozen=True)
class StageOutput:
    """The output of a stage for one shard."""

    rows: pa.Table
    rejects: pa.Table
    """Rejects, in the schema that `rows.rejects` returns."""
    counters: dict[str, float] = field(default_factory=dict)
    """Amounts that make sense when summed over shards."""


class Shard(Protocol):
    """A named part of the input of a stage. It can be pickled."""

    @property
    def key(self) -> str:
        """Return the name of the output of the shard; it is equal in every run."""


@dataclass(frozen=True)
class Contract:
    """The input and the output of a stage."""

    name: str
    """Name of the stage in progress, messages and manifests, and of the section of its settings."""
    artifact: str
    """Folder of the store for its artifacts."""
    reads: pa.Schema
    writes: pa.Schema


@dataclass(frozen=True)
class Stage(Contract):
    """A stage: its contract, its function and its workers."""

    make: Callable[[], Callable[[pa.Table], StageOutput]]
    """Factory of the function for one shard, called once in each worker. It raises ConfigError if the stage
    cannot work as configured."""
    pool: Pool = field(default_factory=Pool)
    max_rejected: float = 1.0
    """Maximum fraction of the rows that may be rejected."""


@dataclass(frozen=True)
class PartShard:
    """A shard that is one file of an artifact, as input of the next stage."""

    entry: FileEntry

    @property
    def key(self) -> str:
        """Return the name of the file without folder and ending."""
        return PurePosixPath(self.entry.path).stem

    def read(self, store: Store) -> pa.Table:
        """Return the rows of the file; its bytes are verified."""
        return store.read_table(self.entry)


def run_stage(
    stage: Stage,
    store: Store,
    source: Manifest,
    *,
    run: str,
    settings: Mapping[str, JsonValue],
    progress: Progress,
) -> Manifest:
    """Process every row of the artifact `source` exactly once and write the artifact of the stage.

    Shards, or a whole artifact, that exist already for the same settings are reused.

    Args:
        source: manifest of the artifact to read.
        run: name of the run, for the manifest.
        settings: everything that decides the content of the artifact, including the identity of `source`.

    Returns:
        The manifest of the stage's artifact.

    Raises:
        ConfigError: the stage cannot work as configured.
        RunError: rows were lost, too many were rejected, a worker died repeatedly, or the disk is full.
    """
    artifact = Artifact(store, stage.name, stage.artifact, run, unused(store, settings))
    return materialise(artifact, progress, lambda: work_on_all(stage, artifact, source, progress))


def work_on_all(stage: Stage, artifact: Artifact, source: Manifest, progress: Progress) -> Contents:
    """Process the shards of `source` that are not done yet, and return the contents of the artifact.

    Raises:
        ConfigError: the stage cannot work as configured.
        RunError: see `run_stage`.
    """
    store, folder = artifact.store, artifact.folder
    progress.start(stage.name, source.rows_out)
    totals = StageTotals(stage.name, stage.max_rejected, source.rows_out)
    shards = [PartShard(entry) for entry in source.files]

    def make() -> Callable[[PartShard], ShardReport]:
        apply = stage.make()
        return lambda shard: work_on(stage, store, folder, shard, apply)

    for report in map_shards(stage.name, make, store, folder, shards, stage.pool):
        totals.add(report)
        progress.advance(report.rows_in)
    return totals.contents()


def work_on(
    stage: Contract, store: Store, folder: str, shard: PartShard, apply: Callable[[pa.Table], StageOutput]
) -> ShardReport:
    """Process one shard and commit it. This runs in a worker.

    Args:
        folder: folder of the artifact.
        apply: the function of the stage.

    Raises:
        RunError: the shard has wrong columns, or the output violates the contract (see `check_output`).
    """
    started = time.perf_counter()
    table = complete(shard.read(store), stage.reads)
    if not table.schema.equals(stage.reads):
        raise RunError(f"{stage.name}: shard {shard.key} has other columns than a {stage.name} stage reads")
    output = apply(table)
    check_output(stage, shard.key, table, output)
    return commit(
        store,
        folder,
        ShardReport(
            key=shard.key,
            rows_in=table.num_rows,
            rows_out=output.rows.num_rows,
            rejected=count_reasons(output.rejects),
            rows_digest=rows_digest(output.rows["row_id"]),
            seconds=time.perf_counter() - started,
            counters=output.counters,
            files=[store.write_table(f"{folder}/rows/{shard.key}.parquet", output.rows)],
            reject_files=write_rejects(store, folder, shard.key, output.rejects),
        ),
    )


def commit(store: Store, folder: str, report: ShardReport) -> ShardReport:
    """Write the report, which marks a shard as done; all files that it names must exist before. Return it."""
    store.write_json(mark_of(folder, report.key), report)
    return report


def mark_of(folder: str, key: str) -> str:
    """Return the name of the file whose existence marks a shard as done: its report."""
    return f"{folder}/done/{key}.json"


def write_rejects(store: Store, folder: str, key: str, rejects: pa.Table) -> list[FileEntry]:
    """Write the rejects of a shard; return the file, or an empty list if there are no rejects."""
    if rejects.num_rows == 0:
        return []
    return [store.write_table(f"{folder}/rejects/{key}.parquet", rejects)]


def check_output(stage: Contract, key: str, table: pa.Table, output: StageOutput) -> None:
    """Raise RunError unless every input row is in the output once, with the columns of the contract."""
    for made, schema in ((output.rows, stage.writes), (output.rejects, rejects_of(stage.writes))):
        if not made.schema.equals(schema):
            raise RunError(f"{stage.name}: the rows of shard {key} have other columns than the artifact")
    for column in stage.writes:
        if not column.nullable and output.rows[column.name].null_count:
            raise RunError(f"{stage.name}: left {column.name} of shard {key} empty")
    rows_out, rejected = output.rows.num_rows, output.rejects.num_rows
    if rows_out + rejected != table.num_rows:
        raise RunError(
            f"{stage.name}: {table.num_rows:,} rows of shard {key} went in, {rows_out:,} came out and "
            f"{rejected:,} were rejected"
        )
    came_out = add_digests([rows_digest(output.rows["row_id"]), rows_digest(output.rejects["row_id"])])
    if came_out != rows_digest(table["row_id"]):
        raise RunError(f"{stage.name}: other row ids left shard {key} than entered it")


S = TypeVar("S", bound=Shard)


def map_shards(
    name: str,
    make: Callable[[], Callable[[S], ShardReport]],
    store: Store,
    folder: str,
    shards: Sequence[S],
    pool: Pool,
) -> Iterator[ShardReport]:
    """Yield the reports of all shards: first those that are done already, then the others as they finish.

    Args:
        name: name of the stage, for messages.
        make: called once in each worker; returns the function that processes and commits one shard.
        folder: folder of the artifact, where reports of finished shards are looked for.
    """
    done = {report.key: report for report in finished(store, folder)}
    yield from (done[shard.key] for shard in shards if shard.key in done)
    todo = [shard for shard in shards if shard.key not in done]
    for report in map_items(name, make, todo, pool):
        publish(name, {"rows_kept": report.rows_out, "rows_rejected": sum(report.rejected.values())})
        yield report


def finished(store: Store, folder: str) -> list[ShardReport]:
    """Return the reports of finished shards, sorted by key: those whose report and files are complete."""
    sizes = {info.name: info.bytes for info in store.infos(folder)}
    marks = sorted(name for name in sizes if name.startswith(f"{folder}/done/"))
    with ThreadPoolExecutor(max_workers=16) as threads:
        reports = [report for report in threads.map(partial(_read_report, store), marks) if report]
    return [
        r for r in reports if all(sizes.get(each.path) == each.bytes for each in [*r.files, *r.reject_files])
    ]


def _read_report(store: Store, name: str) -> ShardReport | None:
    """Return the report of a shard; None if it is damaged, so that the shard counts as not done."""
    try:
        return store.read_json(name, _report, "; its shard is done again")
    except DamagedFileError as error:
        _log.warning("%s", error)
        return None


def finished_report(store: Store, folder: str, key: str) -> ShardReport | None:
    """Return the report of one shard if it is done and its files have the right sizes, else None."""
    mark = mark_of(folder, key)
    report = _read_report(store, mark) if store.exists(mark) else None
    if report is None:
        return None
    try:
        for entry in [*report.files, *report.reject_files]:
            with store.files.open(entry.path) as file:
                if file.size() != entry.bytes:
                    return None
    except FileNotFoundError:
        return None
    return report
