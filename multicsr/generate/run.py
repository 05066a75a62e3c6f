"""Sentences to scored triplets; only what the LLM has not done yet goes to it.

plan      in tasks: what is to do in each file of sentences, cut into shards
write     in actors that hold the LLM: every shard to one file of the ledger, which commits it
assemble  in tasks: sentences and what the ledger says of them, as files of the room `scored`
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.generate.ledger import Cause, Known, Ledger
from multicsr.generate.stage import TripletStage, scoring_settings, writing_settings
from multicsr.manifest import Manifest, fingerprint, rows_digest, write_manifest
from multicsr.progress import Progress
from multicsr.ray_stage import (
    Contract,
    PartShard,
    Pool,
    StageOutput,
    map_items,
    map_shards,
    outcome,
    reusable,
    work_on,
)
from multicsr.rows import SCORED, SENTENCE, rejects
from multicsr.store import SCHEMA_VERSION, Span, Store
from multicsr.tally import ShardReport, Tally, count_reasons
from multicsr.versions import Rooms

_ROOM = "scored"


@dataclass(frozen=True)
class KnownShard(PartShard):
    """A file of sentences, and where to look for what is known of them."""

    known: Known


@dataclass(frozen=True)
class Todo:
    """Sentences of a file that the LLM has not done: those in a span of ids that are not known."""

    path: str
    known: Known


@dataclass(frozen=True)
class _Plan:
    num_known: int
    todo: list[Todo]


def generate(config: Config, rooms: Rooms, progress: Progress) -> Manifest:
    """Write and score two hypotheses for every sentence (MultiCSR Eq. 1-3).

    Raises:
        ConfigError: the LLM or its prompts cannot work as configured.
        RunError: too many rows rejected, rows lost, a worker that died again and again, a full disk.
    """
    started, store = time.monotonic(), rooms.store
    sentences = rooms.manifest("sentences")
    settings = _settings(config, sentences)
    key = fingerprint(settings)
    progress.start("generate", sentences.rows_out)
    if made := reusable(store, _ROOM, key):
        progress.advance(sentences.rows_out)
        progress.finish(f"{outcome(made)}; reused")
        return made
    cause, before = Cause.of(settings), rooms.manifest(_ROOM) if _ROOM in rooms else None
    plans = _plan(config, store, Ledger(store, cause, before), sentences)
    num_known = sum(plan.num_known for plan in plans)
    progress.advance(num_known)
    tally, new = (Tally("generate", config.generate.max_rejected, sentences.rows_out) for _ in range(2))
    tally.count(rows_reused=num_known, rows_written=0, rows_scored=0)
    for report in _write(config, store, cause, [todo for plan in plans for todo in plan.todo]):
        new.add(report)  # stops the job when too many rows are rejected
        tally.count(worker_seconds=report.seconds, **report.counters)
        progress.advance(report.rows_in)
    for report in _assemble(store, Ledger(store, cause, before), sentences, f"{_ROOM}/{key}"):
        tally.add(report)
    manifest = tally.manifest(config.name, settings, time.monotonic() - started)
    write_manifest(store, _ROOM, manifest)
    progress.finish(outcome(manifest))
    return manifest


def _settings(config: Config, sentences: Manifest) -> dict[str, JsonValue]:
    """An id says all that generation depends on, so a touched source file does not cost the LLM again."""
    return {
        "writing": writing_settings(config),
        "scoring": scoring_settings(config),
        "schema": SCHEMA_VERSION,
        "sentences": sentences.rows_digest,
        "files": fingerprint({"rows": [entry.rows for entry in sentences.files]}),
    }


def _plan(config: Config, store: Store, ledger: Ledger, sentences: Manifest) -> list[_Plan]:
    def plan(shard: KnownShard) -> _Plan:
        ids = store.read_table(shard.path, ["row_id"])["row_id"].combine_chunks()
        todo = ids.filter(pc.invert(pc.is_in(ids, shard.known.done(store))))
        return _Plan(len(ids) - len(todo), list(_cut(shard, todo, config.generate.rows_per_shard)))

    return list(map_items("generate", lambda: plan, _shards(ledger, sentences), Pool()))


def _cut(shard: KnownShard, todo: pa.Array, rows_per_shard: int) -> Iterator[Todo]:
    for start in range(0, len(todo), rows_per_shard):
        ids = todo[start : start + rows_per_shard]
        yield Todo(shard.path, shard.known.within(Span(ids[0].as_py(), ids[-1].as_py())))


def _shards(ledger: Ledger, sentences: Manifest) -> list[KnownShard]:
    return [KnownShard(entry.path, ledger.known(entry.ids)) for entry in sentences.files if entry.ids]


def _write(config: Config, store: Store, cause: Cause, todo: Sequence[Todo]) -> Iterator[ShardReport]:
    pool = Pool(
        config.generate.actors,
        config.generate.cpus_per_actor,
        config.generate.gpus_per_actor,
        config.generate.nodes,
        shards_at_once=2 if config.llm.engine == "vllm" else 1,
    )
    return map_items("generate", lambda: writer(store, cause, TripletStage(config)), todo, pool)


def writer(store: Store, cause: Cause, stage: TripletStage) -> Callable[[Todo], ShardReport]:
    """What an actor does with a shard."""

    def write(todo: Todo) -> ShardReport:
        started = time.perf_counter()
        sentences = store.read_table(todo.path, filters=todo.known.span.rows)
        is_done = pc.is_in(sentences["row_id"], todo.known.done(store))
        sentences = sentences.filter(pc.invert(is_done))
        name = cause.file(sentences["row_id"])
        counters: dict[str, float] = {}
        if store.exists(name):  # by the worker that died before it could tell
            rows = store.read_table(name)
        else:
            written = stage(sentences, todo.known.hypotheses(store))
            rows, counters = written.rows, written.counters
            _check_ids(rows, sentences)
            store.write_table(name, rows)
        return _report(rows, counters, time.perf_counter() - started)

    return write


def _check_ids(rows: pa.Table, sentences: pa.Table) -> None:
    if rows["row_id"] != sentences["row_id"]:
        raise RunError("generate: other rows came back from the LLM than were given to it")


def _report(rows: pa.Table, counters: dict[str, float], seconds: float) -> ShardReport:
    refused = rows.filter(pc.is_valid(rows["reason"]))
    return ShardReport(
        key="",
        rows_in=rows.num_rows,
        rows_out=rows.num_rows - refused.num_rows,
        rejected=count_reasons(refused),
        rows_digest=rows_digest(rows["row_id"]),
        seconds=seconds,
        counters=counters,
        files=[],
        reject_files=[],
    )


def _assemble(store: Store, ledger: Ledger, sentences: Manifest, folder: str) -> Iterator[ShardReport]:
    contract = Contract(name="generate", room=_ROOM, reads=SENTENCE, writes=SCORED)

    def assemble(shard: KnownShard) -> ShardReport:
        return work_on(
            contract, store, folder, shard, lambda table: joined(table, shard.known.rows(store), shard.key)
        )

    return map_shards("generate", lambda: assemble, store, folder, _shards(ledger, sentences), Pool())


def joined(sentences: pa.Table, written: pa.Table, key: str) -> StageOutput:
    """SENTENCE rows and the WRITTEN ones of the same ids, as SCORED rows and rejects.

    Raises:
        RunError: a sentence has no written row.
    """
    place = pc.index_in(sentences["row_id"], written["row_id"].combine_chunks())
    if place.null_count:
        raise RunError(
            f"generate: {place.null_count:,} rows of shard {key} are not in the ledger; run the command again"
        )
    written = written.take(place)
    columns = {name: sentences[name] for name in SENTENCE.names}
    columns |= {name: written[name] for name in [*SCORED.names, "reason", "detail"] if name not in columns}
    refused = pa.table(columns, schema=rejects(SCORED))
    is_kept = pc.is_null(refused["reason"])
    return StageOutput(
        refused.filter(is_kept).select(SCORED.names).cast(SCORED), refused.filter(pc.invert(is_kept))
    )
