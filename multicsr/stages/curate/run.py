"""Curation stage of a run: the scored triplets that the encoder is trained on."""

import logging
from functools import partial

from pydantic import JsonValue

from multicsr.config import Config, CurateConfig
from multicsr.execution.pool import Pool
from multicsr.execution.stage_runner import Stage, run_stage
from multicsr.observability.progress import Progress
from multicsr.rows import CURATED, SCORED
from multicsr.stages.curate.rule import CURATION_RULES, check_method, decide
from multicsr.stages.curate.separation import Separation
from multicsr.stages.curate.thresholds import nothing_kept, with_absolute_thresholds
from multicsr.storage.manifest import Manifest, base_fingerprint
from multicsr.storage.store import SCHEMA_VERSION
from multicsr.storage.versions import Snapshot

_log = logging.getLogger(__name__)


def curate(config: Config, snapshot: Snapshot, progress: Progress) -> Manifest:
    """Decide on every scored row and write an artifact `curated`, or reuse an existing one (MultiCSR Eq. 4).

    Returns:
        The manifest of the artifact.

    Raises:
        ConfigError: the rows were scored without the score that `curate.score` selects.
        RunError: no row was kept, rows were lost, a worker died repeatedly, or the disk is full.
    """
    store, scored = snapshot.store, snapshot.manifest("scored")
    check_method(config.curate, scored)
    rule = with_absolute_thresholds(config.curate, store, scored)
    stage, settings = curate_stage(rule, scored), curate_settings(rule, scored)
    curated = run_stage(stage, store, scored, run=config.name, settings=settings, progress=progress)
    separation = Separation.from_counters(curated.counters)
    if separation is not None and separation.is_chance:
        _log.warning(
            "curate: the scores do not tell entailments from contradictions: %s; 50%% is chance. Use "
            "another LLM, generate.prompts or score.method",
            separation,
        )
    if curated.rows_out == 0:
        raise nothing_kept(rule, store, scored)
    return curated


def curate_settings(config: CurateConfig, scored: Manifest) -> dict[str, JsonValue]:
    """Return the settings that decide the curated artifact.

    Args:
        config: settings with the thresholds themselves, as `with_absolute_thresholds` returns them.
        scored: manifest of the artifact to read.
    """
    return {
        "curate": config.model_dump(mode="json", exclude={"keep_share"}),
        "rules": CURATION_RULES,
        "schema": SCHEMA_VERSION,
        "scored": base_fingerprint(scored.fingerprint),
    }


def curate_stage(config: CurateConfig, scored: Manifest) -> Stage:
    """Return the curation stage for `run_stage`.

    Raises:
        ConfigError: the rows were scored without the score that `curate.score` selects.
    """
    check_method(config, scored)
    return Stage(
        name="curate",
        artifact="curated",
        reads=SCORED,
        writes=CURATED,
        make=lambda: partial(decide, config=config),
        pool=Pool(shards_per_task=16),
    )
