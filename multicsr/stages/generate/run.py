"""Stage `generate`: from sentences to scored triplets. The LLM gets only rows that it has not done yet.

plan      in tasks: find the missing rows of each file of sentences and cut them into shards
write     in actors with the LLM: write every shard to files of the LLM cache; each put commits its rows
assemble  in tasks: join the sentences with the LLM cache and write the files of the artifact `scored`

A row on which the engine failed has no result: it is not in the LLM cache, it is a reject of the assembled
artifact, and it changes the fingerprint of that artifact. The next run looks for the artifact without such
rows, does not find it, and asks for them again.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from multicsr.config import Config, LLMConfig
from multicsr.errors import BudgetSpent, DamagedFileError, RunError
from multicsr.execution.materialise import Artifact, complete, reuse
from multicsr.execution.pool import Pool, map_items
from multicsr.execution.shard_report import ShardReport, StageTotals, count_reasons
from multicsr.execution.stage_runner import (
    Contract,
    PartShard,
    StageOutput,
    map_shards,
    work_on,
)
from multicsr.llm.prompt_choice import with_chosen_prompts
from multicsr.observability.progress import Progress
from multicsr.rows import SCORED, SENTENCE, WRITTEN, Reason, rejects
from multicsr.stages.generate.calibrate import calibrate
from multicsr.stages.generate.costs import budget_spent, summarise
from multicsr.stages.generate.fingerprint import result_settings
from multicsr.stages.generate.llm_cache import CachedRange, CacheKey, LLMCache, written_in
from multicsr.stages.generate.repeated import REPETITION_RULE, reject_repeated
from multicsr.stages.generate.triplets import TripletStage
from multicsr.storage import refresh_costs
from multicsr.storage.collected import unused
from multicsr.storage.id_span import IdSpan
from multicsr.storage.manifest import Contents, Manifest, add_digests, fingerprint, rows_digest
from multicsr.storage.store import SCHEMA_VERSION, FileEntry, Store
from multicsr.storage.versions import Snapshot

_CONTRACT = Contract(name="generate", artifact="scored", reads=SENTENCE, writes=SCORED)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedShard(PartShard):
    """File of sentences, and the sources of the results that exist for them."""

    cached: CachedRange


@dataclass(frozen=True)
class Todo:
    """Sentences of a file that the LLM has not done: those in a span of ids that have no result."""

    entry: FileEntry
    cached: CachedRange

    @property
    def key(self) -> str:
        """Return the name of the shard in messages."""
        return f"{self.entry.path}, {self.cached.span}"


@dataclass(frozen=True)
class WrittenShard:
    """Outcome of a shard that an actor has written."""

    report: ShardReport
    failed: str
    """Digest (`rows_digest`) of the ids of the rows on which the engine failed."""
    unpaid: str = ""
    """Reason why further rows of the shard are not written: the budget of the actor is spent."""

    @property
    def num_failed(self) -> int:
        """Return the number of rows on which the engine failed."""
        return self.report.rejected.get(Reason.ENGINE_ERROR, 0)


@dataclass(frozen=True)
class _Plan:
    """Plan for one file of sentences: the number of rows with results, and the shards to write."""

    num_cached: int
    todo: list[Todo]


def generate(config: Config, snapshot: Snapshot, progress: Progress) -> Manifest:
    """Write and score two hypotheses for every sentence (MultiCSR Eq. 1-3).

    Raises:
        ConfigError: the LLM or its prompts cannot work as configured.
        RunError: too many rows are rejected, rows are lost, a worker died repeatedly, or the disk is full.
    """
    store, sentences = snapshot.store, snapshot.manifest("sentences")
    config, notes = named_prompts(config, progress)
    settings = unused(store, _settings(config, sentences))
    calibrate(config, store, settings, progress)
    artifact = Artifact(store, _CONTRACT.name, _CONTRACT.artifact, config.name, settings, notes=notes)
    if made := reuse(artifact, progress):
        return made
    progress.start("generate", sentences.rows_out)
    cache_key, before = CacheKey.of(settings).writable(store), scored_before(snapshot)
    plans = _plan(config, store, LLMCache(store, cache_key, before), sentences)
    num_cached = sum(plan.num_cached for plan in plans)
    progress.skip(num_cached)
    if num_cached < sentences.rows_out:
        how = "in batches, which may take a day" if config.llm.batch else "which loads first"
        progress.announce(f"{sentences.rows_out - num_cached:,} rows for {config.llm.model}, {how}")
    totals, new = (
        StageTotals("generate", config.generate.max_rejected, sentences.rows_out) for _ in range(2)
    )
    totals.count(rows_reused=num_cached, rows_written=0, rows_scored=0)
    failed, num_failed, unpaid = [], 0, []
    for shard in _write(config, store, cache_key, [todo for plan in plans for todo in plan.todo]):
        new.add(shard.report)  # raises if too many rows are rejected
        totals.count(worker_seconds=shard.report.seconds, **shard.report.counters)
        progress.advance(shard.report.rows_in)
        failed.append(shard.failed)
        num_failed += shard.num_failed
        unpaid += [shard.unpaid] if shard.unpaid else []
    if unpaid:
        raise budget_spent(config.llm, totals.counters, unpaid[0])
    if num_failed:
        settings = unused(store, settings | {"failed": add_digests(failed)})
        artifact = replace(artifact, settings=settings)
    for report in _assemble(store, LLMCache(store, cache_key, before), sentences, artifact.folder):
        totals.add(report)
    contents = totals.contents()
    _check_failed(contents, num_failed)
    return complete(replace(artifact, summarise=summarise), contents, progress)


def named_prompts(config: Config, progress: Progress) -> tuple[Config, tuple[str, ...]]:
    """Return the configuration with a named prompt set, and the remark on it if it was chosen here."""
    chosen, choice = with_chosen_prompts(config)
    if choice is None:
        return chosen, ()
    progress.start("prompts", None)
    progress.finish(str(choice))
    return chosen, (str(choice),)


def scored_before(snapshot: Snapshot) -> Manifest | None:
    """Return the manifest of the current version's scored rows, which serve as LLM cache, too.

    Return None if there is none, or if it is damaged.
    """
    if _CONTRACT.artifact not in snapshot:
        return None
    try:
        return snapshot.manifest(_CONTRACT.artifact)
    except DamagedFileError as error:
        _log.warning("%s; its rows are read from the LLM cache only", error)
        return None


def _settings(config: Config, sentences: Manifest) -> dict[str, JsonValue]:
    """Return the settings that decide the content of the scored artifact.

    The ids of the sentences represent all that generation depends on, so a source file that was only touched
    does not make the LLM write again.
    """
    return {
        **result_settings(config),
        "repeated": REPETITION_RULE,
        "schema": SCHEMA_VERSION,
        "sentences": sentences.rows_digest,
        "files": fingerprint({"rows": [entry.rows for entry in sentences.files]}),
    }


def _plan(config: Config, store: Store, cache: LLMCache, sentences: Manifest) -> list[_Plan]:
    """Find the rows without results in each file of sentences."""

    def plan(shard: CachedShard) -> _Plan:
        ids = store.read_table(shard.entry, ["row_id"])["row_id"].combine_chunks()
        is_todo = pc.invert(pc.is_in(ids, shard.cached.done(store)))
        return _Plan(len(ids) - pc.sum(is_todo).as_py(), list(_cut(shard, ids, is_todo, config)))

    return list(map_items("generate", lambda: plan, _shards(cache, sentences), Pool()))


def _cut(shard: CachedShard, ids: pa.Array, is_todo: pa.BooleanArray, config: Config) -> Iterator[Todo]:
    """Yield shards of at most `generate.rows_per_shard` ids that are to do.

    With `llm.batch` a file is always cut at the same places, whatever is done: a run that is started again
    then has the same shards, and finds their batches at the endpoint.
    """
    if not config.llm.batch:
        ids = ids.filter(is_todo)
        is_todo = pa.array([True] * len(ids))
    size = config.generate.rows_per_shard
    for start in range(0, len(ids), size):
        todo = ids[start : start + size].filter(is_todo[start : start + size])
        if len(todo):
            yield Todo(shard.entry, shard.cached.within(IdSpan(todo[0].as_py(), todo[-1].as_py())))


def _shards(cache: LLMCache, sentences: Manifest) -> list[CachedShard]:
    """Return the files of sentences, each with the sources of its results."""
    return [CachedShard(entry, cache.select(entry.ids)) for entry in sentences.files if entry.ids]


def _check_failed(contents: Contents, num_failed: int) -> None:
    """Raise if rows are missing in the LLM cache other than those on which the engine failed.

    Raises:
        RunError: the number of missing rows differs from `num_failed`.
    """
    missing = contents.rejected.get(Reason.ENGINE_ERROR, 0)
    if missing != num_failed:
        raise RunError(
            f"generate: {missing - num_failed:,} rows are not in the LLM cache; run the command again"
        )


def _write(config: Config, store: Store, cache_key: CacheKey, todo: Sequence[Todo]) -> Iterator[WrittenShard]:
    """Write the shards in a pool of actors; yield each one when it is done."""
    llm = config.llm.with_share_of(max(min(config.generate.actors, len(todo)), 1))
    config = config.model_copy(update={"llm": llm})
    pool = llm_pool(config, config.generate.actors)
    gpus = config.generate.gpus_per_actor
    return map_items("generate", lambda: writer(store, cache_key, TripletStage(config), gpus), todo, pool)


def llm_pool(config: Config, actors: int) -> Pool:
    """Return a pool of actors with the LLM."""
    return Pool(
        actors,
        config.generate.cpus_per_actor,
        config.generate.gpus_per_actor,
        config.generate.nodes,
        shards_at_once=_shards_at_once(config.llm),
    )


def _shards_at_once(llm: LLMConfig) -> int:
    """Return the number of shards that an actor works on at the same time."""
    if llm.batch:
        return llm.concurrency
    return 2 if llm.engine == "vllm" else 1


def writer(
    store: Store, cache_key: CacheKey, stage: TripletStage, gpus: float = 0
) -> Callable[[Todo], WrittenShard]:
    """Return the function with which an actor writes a shard to the LLM cache.

    Args:
        store: the store.
        cache_key: key of the LLM cache.
        stage: writes and scores the rows.
        gpus: number of GPUs of the actor, for its costs.
    """

    def write(todo: Todo) -> WrittenShard:
        sentences = store.read_table(todo.entry, filters=todo.cached.span.rows)
        sentences = _without(sentences, todo.cached.done(store))
        rows, work = write_rows(store, cache_key, stage, sentences, todo.cached, gpus)
        premises = sentences["text"].take(pc.index_in(rows["row_id"], sentences["row_id"].combine_chunks()))
        # This verdict only stops the job early: the one that counts is made when the file is assembled.
        return _report(reject_repeated(rows, premises), work)

    return write


@dataclass(frozen=True)
class Work:
    """Amounts of the LLM's work on some rows."""

    counters: dict[str, float]
    seconds: float
    unpaid: str = ""
    """Reason why further rows are not written: the budget of the actor is spent."""


def write_rows(
    store: Store,
    cache_key: CacheKey,
    stage: TripletStage,
    sentences: pa.Table,
    cached: CachedRange,
    gpus: float = 0,
) -> tuple[pa.Table, Work]:
    """Write and score some sentences, and commit them to the LLM cache.

    Args:
        store: the store of the LLM cache.
        cache_key: key of the LLM cache.
        stage: writes and scores the rows.
        sentences: SENTENCE rows without results.
        cached: range of ids with all of them, and the sources of hypotheses that exist for them.
        gpus: number of GPUs of this process, for its costs.

    Returns:
        WRITTEN rows of all sentences, or of those that the budget sufficed for, and the work done for them.
    """
    started, name = time.perf_counter(), uuid4().hex
    rows = [_committed(store, cache_key, cached.span, sentences)]
    missing = _without(sentences, rows[0]["row_id"].combine_chunks())
    counters: Counter[str] = Counter()
    hypotheses = [
        cached.hypotheses(store),
        written_in(store, cache_key.unscored.writable(store), cached.span),
    ]
    unpaid = ""
    try:
        for piece in stage.pieces(missing, pa.concat_tables(hypotheses)):
            counters.update(piece.counters)
            refresh_costs.book(store, _cost(counters, gpus * (time.perf_counter() - started)), name)
            _commit(store, cache_key, cached.span, piece.rows)
            rows.append(piece.rows)
    except BudgetSpent as error:
        # The other actors go on with their shares, so this one returns what it has and does not raise.
        unpaid = str(error)
        counters.update(stage.usage())
    table = pa.concat_tables(rows)
    if unpaid:
        sentences = sentences.filter(pc.is_in(sentences["row_id"], table["row_id"].combine_chunks()))
    _check_ids(table, sentences)
    return table, Work(dict(counters), time.perf_counter() - started, unpaid)


def _without(table: pa.Table, row_ids: pa.Array) -> pa.Table:
    """Return the rows of a table whose ids are not among `row_ids`."""
    return table.filter(pc.invert(pc.is_in(table["row_id"], row_ids)))


def _committed(store: Store, cache_key: CacheKey, span: IdSpan, sentences: pa.Table) -> pa.Table:
    """Return the rows of these sentences that an earlier worker committed before it died.

    If two workers committed the same row, it is returned once.
    """
    rows = written_in(store, cache_key, span)
    places = pc.index_in(sentences["row_id"], rows["row_id"].combine_chunks())
    return rows.take(places.drop_null())


def _commit(store: Store, cache_key: CacheKey, span: IdSpan, rows: pa.Table) -> None:
    """Put the results among these rows into the LLM cache.

    Of a row on which the engine failed, the hypotheses are kept as unscored if they were written before.
    """
    has_failed = pc.fill_null(pc.equal(rows["reason"], Reason.ENGINE_ERROR.value), False)
    unscored = rows.filter(pc.and_(has_failed, pc.is_valid(rows["entailment"])))
    for name in ("reason", "detail"):
        unscored = unscored.set_column(
            WRITTEN.get_field_index(name), name, pa.nulls(len(unscored), pa.string())
        )
    for part, why in (
        (rows.filter(pc.invert(has_failed)), cache_key),
        (unscored, cache_key.unscored.writable(store)),
    ):
        if part.num_rows:
            store.write_named_table(why.file(part["row_id"], span), part)


def _cost(counters: Mapping[str, float], gpu_seconds: float) -> refresh_costs.Cost:
    """Return the costs of a shard so far."""
    return refresh_costs.Cost(
        rows_written=int(counters.get("rows_written", 0)),
        rows_scored=int(counters.get("rows_scored", 0)),
        tokens=int(counters.get("generated_tokens", 0)),
        gpu_seconds=gpu_seconds,
    )


def _check_ids(rows: pa.Table, sentences: pa.Table) -> None:
    """Raise unless both tables hold the same ids.

    Raises:
        RunError: they differ.
    """
    if sorted(rows["row_id"].to_pylist()) != sorted(sentences["row_id"].to_pylist()):
        raise RunError("generate: other rows came back from the LLM than were given to it")


def _report(rows: pa.Table, work: Work) -> WrittenShard:
    """Return the outcome of a shard, and log a warning if the engine failed on rows."""
    rejected = rows.filter(pc.is_valid(rows["reason"]))
    failed = rejected.filter(pc.equal(rejected["reason"], Reason.ENGINE_ERROR.value))
    if failed.num_rows:
        _log.warning(
            "generate: the engine failed on %d rows, which the next run asks for again; the first: %s",
            failed.num_rows,
            failed["detail"][0],
        )
    report = ShardReport(
        key="",
        rows_in=rows.num_rows,
        rows_out=rows.num_rows - rejected.num_rows,
        rejected=count_reasons(rejected),
        rows_digest=rows_digest(rows["row_id"]),
        seconds=work.seconds,
        counters=work.counters,
    )
    return WrittenShard(report, rows_digest(failed["row_id"]), work.unpaid)


def _assemble(store: Store, cache: LLMCache, sentences: Manifest, folder: str) -> Iterator[ShardReport]:
    """Write the files of the artifact `scored`; yield a report for each file of sentences."""

    def assemble(shard: CachedShard) -> ShardReport:
        return assemble_shard(store, folder, shard, shard.cached.rows(store))

    return map_shards("generate", lambda: assemble, store, folder, _shards(cache, sentences), Pool())


def assemble_shard(store: Store, folder: str, shard: PartShard, written: pa.Table) -> ShardReport:
    """Write the scored rows and the rejects of one file of sentences into the folder of an artifact."""
    return work_on(_CONTRACT, store, folder, shard, lambda table: joined(table, written))


def joined(sentences: pa.Table, written: pa.Table) -> StageOutput:
    """Join SENTENCE rows with WRITTEN rows by id; return SCORED rows and rejects.

    A sentence without a WRITTEN row becomes a reject with the reason ENGINE_ERROR. Rows with a hypothesis
    that stands on many rows become rejects here, where all rows of a file are at hand.
    """
    place = pc.index_in(sentences["row_id"], written["row_id"].combine_chunks())
    written = written.take(place)
    columns = {name: sentences[name] for name in SENTENCE.names}
    columns |= {name: written[name] for name in [*SCORED.names, "reason", "detail"] if name not in columns}
    has_failed = pc.is_null(place)
    columns["reason"] = pc.if_else(has_failed, Reason.ENGINE_ERROR.value, columns["reason"])
    columns["detail"] = pc.if_else(has_failed, "no result; the next run asks for it again", columns["detail"])
    rejected = reject_repeated(pa.table(columns, schema=rejects(SCORED)), sentences["text"])
    is_kept = pc.is_null(rejected["reason"])
    return StageOutput(
        rejected.filter(is_kept).select(SCORED.names).cast(SCORED), rejected.filter(pc.invert(is_kept))
    )
