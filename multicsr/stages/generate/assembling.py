"""Assembly of the stage `generate`: in tasks, sentences and the LLM cache joined to the artifact `scored`."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.execution.pool import Pool
from multicsr.execution.shard_report import ShardReport
from multicsr.execution.stage_runner import Contract, PartShard, StageOutput, map_shards, work_on
from multicsr.rows import SCORED, SENTENCE, Reason, rejects
from multicsr.stages.generate.leaked import reject_leaked
from multicsr.stages.generate.llm_cache import LLMCache
from multicsr.stages.generate.planning import CachedShard, cached_shards
from multicsr.stages.generate.repeated import reject_repeated
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.storage.id_numbers import find_ids, id_words
from multicsr.storage.manifest import Manifest
from multicsr.storage.store import Store

CONTRACT = Contract(name="generate", artifact="scored", reads=SENTENCE, writes=SCORED)
"""Contract of the stage."""


def assemble_files(
    store: Store, cache: LLMCache, sentences: Manifest, folder: str, dropped: KnownTexts | None
) -> Iterator[ShardReport]:
    """Write the files of the artifact `scored`; yield a report for each file of sentences."""

    def assemble(shard: CachedShard) -> ShardReport:
        return assemble_shard(store, folder, shard, shard.cached.rows(store), dropped)

    return map_shards("generate", lambda: assemble, store, folder, cached_shards(cache, sentences), Pool())


def assemble_shard(
    store: Store, folder: str, shard: PartShard, written: pa.Table, dropped: KnownTexts | None = None
) -> ShardReport:
    """Write the scored rows and the rejects of one file of sentences into the folder of an artifact."""
    return work_on(CONTRACT, store, folder, shard, lambda table: joined(table, written, dropped))


def joined(sentences: pa.Table, written: pa.Table, dropped: KnownTexts | None = None) -> StageOutput:
    """Join SENTENCE rows with WRITTEN rows by id; return SCORED rows and rejects.

    A sentence without a WRITTEN row becomes a reject with the reason ENGINE_ERROR, and one that `dropped` has
    with the reason LEAKED. Rows with a hypothesis that stands on many rows become rejects here, where all
    rows of a file are at hand.
    """
    place_N = find_ids(id_words(sentences["row_id"]), id_words(written["row_id"]))
    place = pa.array(place_N, mask=place_N < 0)
    written = written.take(place)
    columns = {name: sentences[name] for name in SENTENCE.names}
    columns |= {name: written[name] for name in [*SCORED.names, "reason", "detail"] if name not in columns}
    has_failed = pc.is_null(place)
    columns["reason"] = pc.if_else(has_failed, Reason.ENGINE_ERROR.value, columns["reason"])
    columns["detail"] = pc.if_else(has_failed, "no result; the next run asks for it again", columns["detail"])
    rows = pa.table(columns, schema=rejects(SCORED))
    if dropped is not None:
        rows = reject_leaked(rows, sentences["text"], dropped)
    rejected = reject_repeated(rows, sentences["text"])
    is_kept = pc.is_null(rejected["reason"])
    return StageOutput(
        rejected.filter(is_kept).select(SCORED.names).cast(SCORED), rejected.filter(pc.invert(is_kept))
    )
