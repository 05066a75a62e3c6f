"""Writing of the stage `generate`: in actors with the LLM, shards of sentences to files of the LLM cache.

Each put commits its rows, so that a worker that dies loses only what it has not put yet.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.config import Config, LLMConfig
from multicsr.config.packages import parts_of_generation
from multicsr.errors import BudgetSpent, RunError
from multicsr.execution.pool import Pool, map_items
from multicsr.execution.shard_report import ShardReport, count_reasons
from multicsr.extensions import checked_first
from multicsr.prompts import prompts_for_workers
from multicsr.rows import WRITTEN, Reason
from multicsr.stages.generate.leaked import is_clean
from multicsr.stages.generate.llm_cache import CachedRange, CacheKey, written_in
from multicsr.stages.generate.planning import Todo
from multicsr.stages.generate.repeated import reject_repeated
from multicsr.stages.generate.triplets import TripletStage
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.storage import refresh_costs
from multicsr.storage.id_numbers import find_ids, id_words
from multicsr.storage.id_span import IdSpan
from multicsr.storage.manifest import rows_digest
from multicsr.storage.store import FileEntry, Store

_log = logging.getLogger(__name__)


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


def write_shards(
    config: Config,
    store: Store,
    cache_key: CacheKey,
    todo: Sequence[Todo],
    dropped: KnownTexts | None,
    shown: Sequence[FileEntry] = (),
) -> Iterator[WrittenShard]:
    """Write the shards in a pool of actors; yield each one when it is done.

    Args:
        config: the configuration.
        store: the store.
        cache_key: key of the LLM cache.
        todo: the shards.
        dropped: texts of the labelled sets; nothing is written for sentences that they have.
        shown: files of the labelled premises, see `prepare_demonstrations`.
    """
    llm = config.llm.with_share_of(max(min(config.generate.actors, len(todo)), 1))
    config = config_for_workers(config.model_copy(update={"llm": llm}))
    pool = llm_pool(config, config.generate.actors)
    gpus = config.generate.gpus_per_actor
    make = checked_first(
        parts_of_generation(config),
        lambda: writer(store, cache_key, load_stage(config, store, shown), gpus, dropped),
    )
    return map_items("generate", make, todo, pool)


def load_stage(config: Config, store: Store, shown: Sequence[FileEntry]) -> TripletStage:
    """Load the models of an actor: the LLM, what else scores, and P if prompts have demonstrations."""
    if config.generate.demonstrations is None:
        return TripletStage(config)
    from multicsr.stages.generate.retrieval.retriever import load_retriever

    return TripletStage(config, load_retriever(config, store, shown))


def config_for_workers(config: Config) -> Config:
    """Return the configuration with the text of the prompt set in the place of its path."""
    prompts = prompts_for_workers(config.generate.prompts)
    return config.model_copy(update={"generate": config.generate.model_copy(update={"prompts": prompts})})


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
    store: Store,
    cache_key: CacheKey,
    stage: TripletStage,
    gpus: float = 0,
    dropped: KnownTexts | None = None,
) -> Callable[[Todo], WrittenShard]:
    """Return the function with which an actor writes a shard to the LLM cache.

    Args:
        store: the store.
        cache_key: key of the LLM cache.
        stage: writes and scores the rows.
        gpus: number of GPUs of the actor, for its costs.
        dropped: texts of the labelled sets; nothing is written for sentences that they have.
    """

    def write(todo: Todo) -> WrittenShard:
        sentences = store.read_table(todo.entry, filters=todo.cached.span.rows)
        sentences = _without(sentences, todo.cached.done(store))
        if dropped is not None:
            sentences = sentences.filter(is_clean(sentences["text"], dropped))
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
    missing = _without(sentences, rows[0]["row_id"])
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


def _without(table: pa.Table, row_ids: pa.ChunkedArray) -> pa.Table:
    """Return the rows of a table whose ids are not among `row_ids`."""
    return table.filter(pa.array(find_ids(id_words(table["row_id"]), id_words(row_ids)) < 0))


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
