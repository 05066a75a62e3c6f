"""Results of the LLM for a few sentences, which belong to no version: they are in the LLM cache alone.

A later run with the same settings finds them there and does not write them again. No lease is needed: a file
of the LLM cache has a name of its own, is put in one step, and is never changed.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from multicsr.config import Config
from multicsr.config.packages import parts_of_generation
from multicsr.execution.pool import map_items
from multicsr.extensions import checked_first
from multicsr.observability.progress import Progress
from multicsr.stages.generate.costs import budget_spent
from multicsr.stages.generate.fingerprint import result_settings
from multicsr.stages.generate.llm_cache import CachedRange, CacheKey, LLMCache
from multicsr.stages.generate.retrieval.prepare import prepare_demonstrations
from multicsr.stages.generate.run import labelled_premises, report_labelled, scored_before
from multicsr.stages.generate.writing import config_for_workers, llm_pool, load_stage, write_rows
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.storage.id_span import IdSpan
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.versions import current

_ROWS_AT_ONCE = 16
"""Sentences that are committed and reported together. More of them decode faster on a GPU; with fewer, the
first ones are reported sooner."""


@dataclass(frozen=True)
class FewSentences:
    """SENTENCE rows without results, and the sources of hypotheses that exist for them."""

    rows: pa.Table
    cached: CachedRange

    @property
    def key(self) -> str:
        """Return the name of the shard in messages."""
        return str(self.cached.span)


@dataclass(frozen=True)
class FewResults:
    """Results of the LLM for a few sentences."""

    rows: pa.Table
    """WRITTEN rows, one for each sentence."""
    num_reused: int
    """Number of rows that existed before."""
    counters: dict[str, float]
    """Amounts of work for the other rows, such as tokens and seconds."""
    settings: dict[str, JsonValue]
    """Settings that decide the results, as a manifest of scored rows has them."""


def write_few(
    config: Config, sentences: pa.Table, progress: Progress, known: KnownTexts | None = None
) -> FewResults:
    """Write and score hypotheses for a few sentences, or take the results that exist.

    Somebody waits for them, so an endpoint is asked at once, also with `llm.batch`; the results are the same.

    Args:
        config: the configuration of a run with a named prompt set; its store gets the results.
        sentences: SENTENCE rows, sorted by id, few enough for the memory of this process.
        progress: receives the rows that are done.
        known: texts of the labelled sets; with `evaluate.drop_leaks`, labelled triplets that they have are
            not shown to the LLM.

    Raises:
        ConfigError: the LLM or its prompts cannot work as configured.
        BudgetSpent: the budget of the LLM does not suffice; rows done are kept.
        RunError: a worker died repeatedly, or the disk is full.
    """
    config = config.model_copy(update={"llm": config.llm.model_copy(update={"batch": False})})
    store, labelled = Store.of(config), labelled_premises(config, known)
    settings = result_settings(config, labelled)
    cache_key = CacheKey.of(settings).writable(store)
    ids = sentences["row_id"].combine_chunks()
    cached = LLMCache(store, cache_key, scored_before(current(store))).select(
        IdSpan(ids[0].as_py(), ids[-1].as_py())
    )
    existing = cached.rows(store)
    existing = existing.take(pc.index_in(ids, existing["row_id"].combine_chunks()).drop_null())
    missing = sentences.filter(pc.invert(pc.is_in(ids, existing["row_id"].combine_chunks())))
    progress.start("generate", len(sentences))
    report_labelled(config, labelled, progress)
    progress.skip(len(existing))
    if len(missing):
        progress.announce(f"{len(missing):,} rows for {config.llm.model}, which loads first")
    tables, counters = [existing], Counter[str]()
    worker_config, pool = config_for_workers(config), llm_pool(config, actors=1)
    shown = prepare_demonstrations(config, store, labelled if len(missing) else None, pool, progress)
    make = checked_first(parts_of_generation(config), lambda: _writer(worker_config, store, cache_key, shown))
    for rows, amounts in map_items("generate", make, list(_cut(missing, cached)), pool):
        tables.append(rows)
        counters.update(amounts)
        progress.advance(len(rows))
    return FewResults(pa.concat_tables(tables), len(existing), dict(counters), settings)


def _cut(missing: pa.Table, cached: CachedRange) -> Iterator[FewSentences]:
    """Yield the sentences without results in groups of `_ROWS_AT_ONCE`."""
    for start in range(0, len(missing), _ROWS_AT_ONCE):
        rows = missing.slice(start, _ROWS_AT_ONCE)
        span = IdSpan(rows["row_id"][0].as_py(), rows["row_id"][-1].as_py())
        yield FewSentences(rows, cached.within(span))


def _writer(
    config: Config, store: Store, cache_key: CacheKey, shown: Sequence[FileEntry]
) -> Callable[[FewSentences], tuple[pa.Table, dict[str, float]]]:
    """Return the function with which an actor writes a group of sentences."""
    stage, gpus = load_stage(config, store, shown), config.generate.gpus_per_actor

    def write(group: FewSentences) -> tuple[pa.Table, dict[str, float]]:
        rows, work = write_rows(store, cache_key, stage, group.rows, group.cached, gpus)
        if work.unpaid:
            raise budget_spent(config.llm, Counter(work.counters), work.unpaid)
        return rows, work.counters

    return write
