"""The one door to Ray Data: shards in, shards out, every row accounted for.

Ray Data carries names of shards, never rows. A worker reads a shard, works, writes its rejects, its rows and
last its report, which is what commits the shard. The driver adds up reports.
"""

import logging
import math
import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyarrow as pa
from pydantic import JsonValue

from multicsr.errors import MulticsrError, RunError, WorkerLost
from multicsr.manifest import (
    Manifest,
    add_digests,
    fingerprint,
    manifest_name,
    read_manifest,
    rows_digest,
    write_manifest,
)
from multicsr.metrics import publish
from multicsr.progress import Progress
from multicsr.ray_start import start_ray
from multicsr.rows import rejects as rejects_of
from multicsr.store import FileEntry, Store
from multicsr.tally import ShardReport, Tally, count_reasons

if TYPE_CHECKING:
    from ray.data import Dataset

_log = logging.getLogger(__name__)
_RETRIES = 2
"""Of a shard whose worker died. Ray's default has no end; a row that kills its process would never end."""


@dataclass(frozen=True)
class StageOutput:
    """What a stage made of one shard."""

    rows: pa.Table
    rejects: pa.Table
    """Of schema `rows.rejects(...)`."""
    counters: dict[str, float] = field(default_factory=dict)
    """Amounts that make sense when summed over shards."""


class Shard(Protocol):
    """A named part of a stage's input. Pickles."""

    @property
    def key(self) -> str:
        """Names what is made of it; the same in every run."""


@dataclass(frozen=True)
class Pool:
    """Who does the work."""

    actors: int | None = None
    """Size of the actor pool; None: plain tasks, for cheap work without a model."""
    cpus: float = 1
    gpus: float = 0
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Ray labels of the nodes that may do it; none: any node."""
    shards_at_once: int = 1
    """In one actor, each in a thread of its own; more than one keeps a model busy while a shard runs out."""
    shards_per_task: int = 1
    """More than one where the work on a shard is small beside Ray's overhead of some 10 ms."""


@dataclass(frozen=True)
class Contract:
    """What goes into a stage and comes out."""

    name: str
    """Names the stage in progress, messages and manifests, and the section of its settings."""
    room: str
    """Folder of the store it writes."""
    reads: pa.Schema
    writes: pa.Schema


@dataclass(frozen=True)
class Stage(Contract):
    """What runs, and on what."""

    make: Callable[[], Callable[[pa.Table], StageOutput]]
    """Called once in each worker; raises ConfigError when it cannot work as configured."""
    pool: Pool = Pool()
    max_rejected: float = 1.0


@dataclass(frozen=True)
class PartShard:
    """One file of a room, as input of the next stage."""

    path: str

    @property
    def key(self) -> str:
        return PurePosixPath(self.path).stem

    def read(self, store: Store) -> pa.Table:
        return store.read_table(self.path)


def run_stage(
    stage: Stage,
    store: Store,
    source: Manifest,
    *,
    run: str,
    settings: Mapping[str, JsonValue],
    progress: Progress,
) -> Manifest:
    """Take every row of the room `source` through the stage, once; returns the manifest of the stage's room.

    What was done already under the same settings is not redone.

    Args:
        source: the room to read.
        run: name of the run, for the manifest.
        settings: everything that decides the content of the room, what identifies `source` included.

    Raises:
        ConfigError: the stage cannot work as configured.
        RunError: rows lost, too many rejected, a worker that died again and again, a full disk.
    """
    started = time.monotonic()
    folder = f"{stage.room}/{fingerprint(settings)}"
    progress.start(stage.name, source.rows_out)
    if published := reusable(store, stage.room, fingerprint(settings)):
        progress.advance(source.rows_out)
        progress.finish(f"{outcome(published)}; reused")
        return published
    tally = Tally(stage.name, stage.max_rejected, source.rows_out)
    shards = [PartShard(entry.path) for entry in source.files]

    def make() -> Callable[[PartShard], ShardReport]:
        apply = stage.make()
        return lambda shard: work_on(stage, store, folder, shard, apply)

    for report in map_shards(stage.name, make, store, folder, shards, stage.pool):
        tally.add(report)
        progress.advance(report.rows_in)
    manifest = tally.manifest(run, settings, time.monotonic() - started)
    write_manifest(store, stage.room, manifest)
    progress.finish(outcome(manifest))
    return manifest


def reusable(store: Store, room: str, wanted: str) -> Manifest | None:
    """The room's manifest, if the room is complete under this fingerprint and all its files are there."""
    if not store.exists(manifest_name(room, wanted)):
        return None
    manifest = read_manifest(store, room, wanted)
    paths = {entry.path for entry in [*manifest.files, *manifest.reject_files]}
    folders = {"/".join(path.split("/")[:2]) for path in paths}
    present = {name for folder in folders for name in store.names(folder)}
    return manifest if paths <= present else None


def work_on(
    stage: Contract, store: Store, folder: str, shard: PartShard, apply: Callable[[pa.Table], StageOutput]
) -> ShardReport:
    """Take one shard through a stage and commit it, in a worker."""
    started = time.perf_counter()
    table = shard.read(store)
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
    """Mark a shard as done; everything that the report names must be written before."""
    store.write_text(f"{folder}/done/{report.key}.json", report.model_dump_json())
    return report


def write_rejects(store: Store, folder: str, key: str, rejects: pa.Table) -> list[FileEntry]:
    """Write the rejects of a shard, if there are any."""
    if rejects.num_rows == 0:
        return []
    return [store.write_table(f"{folder}/rejects/{key}.parquet", rejects)]


def check_output(stage: Contract, key: str, table: pa.Table, output: StageOutput) -> None:
    """Raises RunError unless every row that went in came out once, in the columns of its room."""
    for made, schema in ((output.rows, stage.writes), (output.rejects, rejects_of(stage.writes))):
        if not made.schema.equals(schema):
            raise RunError(f"{stage.name}: made other columns of shard {key} than its room holds")
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
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")


def map_shards(
    name: str,
    make: Callable[[], Callable[[S], ShardReport]],
    store: Store,
    folder: str,
    shards: Sequence[S],
    pool: Pool,
) -> Iterator[ShardReport]:
    """The reports of all shards: first those found done under `folder`, then the others as they finish.

    Args:
        name: the stage, for messages.
        make: called once in each worker; what it returns works on one shard and commits it.
    """
    done = {report.key: report for report in _finished(store, folder)}
    yield from (done[shard.key] for shard in shards if shard.key in done)
    todo = [shard for shard in shards if shard.key not in done]
    for report in map_items(name, make, todo, pool):
        publish(name, {"rows_kept": report.rows_out, "rows_rejected": sum(report.rejected.values())})
        yield report


def _finished(store: Store, folder: str) -> list[ShardReport]:
    names = store.names(folder)
    marks = [name for name in names if name.startswith(f"{folder}/done/")]
    with ThreadPoolExecutor(max_workers=16) as threads:
        reports = list(threads.map(ShardReport.model_validate_json, threads.map(store.read_bytes, marks)))
    present = set(names)
    return [r for r in reports if all(entry.path in present for entry in [*r.files, *r.reject_files])]


class _Worker:
    """Lives in an actor, or for one call in a task.

    An expected error travels back as a value, because Ray would wrap an exception in its own tracebacks;
    for the same reason the stage is made at the first call, not in the constructor.
    """

    def __init__(self, make: Callable[[], Callable[[Any], object]]) -> None:
        self._make = make
        self._making = threading.Lock()
        self._work: Callable[[Any], object] | None = None

    def __call__(self, batch: Mapping[str, Sequence[bytes]]) -> dict[str, list[bytes]]:
        result: object
        try:
            with self._making:
                self._work = self._work or self._make()
            result = self._work(pickle.loads(batch["shard"][0]))
        except WorkerLost as error:
            _log.error("%s; this worker ends, another one takes over its shards", error)
            os._exit(1)
        except MulticsrError as error:
            result = error
        return {"result": [pickle.dumps(result)]}


def map_items(name: str, make: Callable[[], Callable[[I], R]], items: Sequence[I], pool: Pool) -> Iterator[R]:
    """What the workers make of each item, as they finish.

    Args:
        name: the stage, for messages.
        items: few and small: they and the results pass through the driver.
    """
    if not items:
        return
    from ray.exceptions import RayError

    with start_ray(pool.cpus * (pool.actors or 1)):
        results = _results(make, items, pool)
        try:
            publish(name, {}, {"shards_waiting": len(items)})
            for done, row in enumerate(results.iter_rows(), 1):
                publish(name, {}, {"shards_waiting": len(items) - done})
                result = pickle.loads(row["result"])
                if isinstance(result, MulticsrError):
                    raise result
                yield result
        except RayError as error:
            raise RunError(f"{name}: {_cause(error)}; the shards done so far are kept") from error


def _results(make: Callable[[], Callable[[I], R]], items: Sequence[I], pool: Pool) -> "Dataset":
    """Rows with a pickled `result` each, computed while they are read."""
    import ray.data
    from ray.util.annotations import RayDeprecationWarning

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not logging.getLogger().isEnabledFor(logging.INFO):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        # Ray 2.60 deprecates passing a limit of retries and offers no other way yet.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        blocks = math.ceil(len(items) / pool.shards_per_task)
        names = ray.data.from_items(
            [{"shard": pickle.dumps(item)} for item in items], override_num_blocks=blocks
        )
        resources: dict[str, Any] = {"num_cpus": pool.cpus, "num_gpus": pool.gpus, "batch_size": 1}
        if pool.nodes:
            resources["label_selector"] = {**pool.nodes}
        if pool.actors is None:
            return names.map_batches(
                lambda batch: _Worker(make)(batch),
                max_retries=_RETRIES,
                **resources,
            )
        return names.map_batches(
            _Worker,
            fn_constructor_args=(make,),
            compute=ray.data.ActorPoolStrategy(
                size=min(pool.actors, len(items)),
                max_tasks_in_flight_per_actor=pool.shards_at_once + 1,
                max_concurrent_calls_per_actor=pool.shards_at_once,
                enable_true_multi_threading=pool.shards_at_once > 1,
            ),
            max_task_retries=_RETRIES,
            **resources,
        )


def _cause(error: Exception) -> str:
    """How a worker died, or, out of the traceback that Ray gives as text, what the stage's code raised."""
    first, *frames = str(error).splitlines()
    raised = (line for line in frames if line and not line[0].isspace())
    return next(raised, first) if "ray::" in first else first


def outcome(manifest: Manifest) -> str:
    """A stage's one line of result."""
    return f"{manifest.rows_out:,} kept, {sum(manifest.rejected.values()):,} rejected"
