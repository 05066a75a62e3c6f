"""Curation stage of a run: the scored triplets that the encoder is trained on."""

import logging
from functools import partial

from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import NothingKept
from multicsr.execution.materialise import Artifact, materialise
from multicsr.execution.pool import Pool, map_items
from multicsr.execution.stage_runner import PartShard, Stage, work_on_all
from multicsr.observability.progress import Progress
from multicsr.rows import CURATED, SCORED, Reason, complete
from multicsr.stages.curate.balance import BALANCE_RULES, WordBalance, WordCounts, balance_words, count_words
from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.rule import CURATION_RULES, decide, judge
from multicsr.stages.curate.separation import Separation
from multicsr.stages.curate.thresholds import nothing_kept, with_absolute_thresholds
from multicsr.storage.collected import unused
from multicsr.storage.manifest import Contents, Manifest, base_fingerprint
from multicsr.storage.store import SCHEMA_VERSION, Store
from multicsr.storage.versions import Snapshot

_log = logging.getLogger(__name__)
_STAGE, _ARTIFACT = "curate", "curated"
_FILES_PER_TASK = 16


def curate(config: Config, snapshot: Snapshot, progress: Progress) -> Manifest:
    """Decide on every scored row and write an artifact `curated`, or reuse an existing one (MultiCSR Eq. 4).

    Returns:
        The manifest of the artifact.

    Raises:
        ConfigError: the rows were scored without the score that `curate.score` selects, or the pairs of
            `score.calibrate` were not scored.
        NothingKept: no row was kept.
        RunError: rows were lost, a worker died repeatedly, or the disk is full.
    """
    store, scored = snapshot.store, snapshot.manifest("scored")
    curation = with_absolute_thresholds(Curation.of(config, store, scored), store, scored)
    settings = unused(store, curate_settings(curation, scored))
    artifact = Artifact(store, _STAGE, _ARTIFACT, config.name, settings)

    def make() -> Contents:
        return work_on_all(curate_stage(curation, store, scored), artifact, scored, progress)

    curated = materialise(artifact, progress, make)
    separation = Separation.from_counters(curated.counters)
    if separation is not None and separation.is_chance:
        _log.warning(
            "curate: the scores do not tell entailments from contradictions: %s; 50%% is chance. Use "
            "another LLM, generate.prompts or score.method",
            separation,
        )
    if curated.rows_out == 0:
        raise nothing_left(curation, curated, store, scored)
    return curated


def nothing_left(curation: Curation, curated: Manifest, store: Store, scored: Manifest) -> NothingKept:
    """Return the error for an artifact `curated` without rows.

    Args:
        curation: settings with the thresholds themselves.
        curated: manifest of the artifact.
        store: the store of the scored rows.
        scored: manifest of the artifact that was read.
    """
    rejected = curated.rejected.get(Reason.LEXICAL_BIAS, 0)
    if not rejected:
        return nothing_kept(curation, store, scored)
    return NothingKept(
        f"curate: all {rejected:,} rows that pass the thresholds are rejected to balance words; raise "
        f"curate.max_word_ratio ({curation.max_word_ratio:g}), or leave it out"
    )


def curate_settings(curation: Curation, scored: Manifest) -> dict[str, JsonValue]:
    """Return the settings that decide the curated artifact.

    Args:
        curation: settings with the thresholds themselves, as `with_absolute_thresholds` returns them.
        scored: manifest of the artifact to read.
    """
    balance: dict[str, JsonValue] = {} if curation.max_word_ratio is None else {"balance": BALANCE_RULES}
    return {
        "curate": curation.to_store(),
        "rules": CURATION_RULES,
        "schema": SCHEMA_VERSION,
        "scored": base_fingerprint(scored.fingerprint),
        **balance,
    }


def curate_stage(curation: Curation, store: Store, scored: Manifest) -> Stage:
    """Return the curation stage for `run_stage`; the words of all rows are counted if they are balanced."""
    balance = _balance(curation, store, scored)
    return Stage(
        name=_STAGE,
        artifact=_ARTIFACT,
        reads=SCORED,
        writes=CURATED,
        make=lambda: partial(decide, curation=curation, balance=balance),
        pool=Pool(shards_per_task=_FILES_PER_TASK),
    )


def _balance(curation: Curation, store: Store, scored: Manifest) -> WordBalance | None:
    """Count the words of the rows that pass the thresholds; return the shares of rows to keep."""
    if curation.max_word_ratio is None:
        return None

    def count(shard: PartShard) -> WordCounts:
        return count_words(judge(complete(shard.read(store), SCORED), curation).passing)

    shards = [PartShard(entry) for entry in scored.files]
    counts = map_items(_STAGE, lambda: count, shards, Pool(shards_per_task=_FILES_PER_TASK))
    return balance_words(counts, curation.max_word_ratio)
