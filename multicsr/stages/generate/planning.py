"""Plan of the stage `generate`: the rows of each file of sentences that the LLM has not done, in shards.

In tasks, a file each: ids are compared where they are read, and no process holds those of the corpus.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.config import Config
from multicsr.execution.pool import Pool, map_items
from multicsr.execution.stage_runner import PartShard
from multicsr.stages.generate.llm_cache import CachedRange, LLMCache
from multicsr.stages.ingest.leaks import Leaks, find_leaks
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.storage.id_numbers import find_ids, id_words
from multicsr.storage.id_span import IdSpan
from multicsr.storage.manifest import Manifest
from multicsr.storage.store import FileEntry, Store


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
class FilePlan:
    """Plan for one file of sentences: the number of rows with results, and the shards to write."""

    num_cached: int
    todo: list[Todo]
    leaks: Leaks
    """Sentences of the file that labelled sets have too."""
    num_dropped: int
    """Number of these sentences if they are not written for, or else 0."""


def plan_files(
    config: Config, store: Store, cache: LLMCache, sentences: Manifest, known: KnownTexts | None
) -> list[FilePlan]:
    """Find the rows without results in each file of sentences, and those that labelled sets have too."""

    def plan(shard: CachedShard) -> FilePlan:
        rows = store.read_table(shard.entry, ["row_id"] if known is None else ["row_id", "text"])
        ids = rows["row_id"].combine_chunks()
        is_kept, leaks = pa.array([True] * len(ids)), Leaks()
        if known is not None:
            leaks, details = find_leaks(known, rows["text"].to_pylist())
            is_kept = pa.array([not config.evaluate.drop_leaks or each is None for each in details])
        is_new = pa.array(find_ids(id_words(rows["row_id"]), id_words(shard.cached.done(store))) < 0)
        is_todo = pc.and_(is_kept, is_new)
        num_kept = pc.sum(is_kept).as_py() or 0
        num_todo = pc.sum(is_todo).as_py() or 0
        todo = list(_cut(shard, ids, is_todo, config))
        return FilePlan(num_kept - num_todo, todo, leaks, len(ids) - num_kept)

    return list(map_items("generate", lambda: plan, cached_shards(cache, sentences), Pool()))


def cached_shards(cache: LLMCache, sentences: Manifest) -> list[CachedShard]:
    """Return the files of sentences, each with the sources of its results."""
    return [CachedShard(entry, cache.select(entry.ids)) for entry in sentences.files if entry.ids]


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
