"""Curation stage of a run: the scored triplets that the encoder is trained on."""

from functools import partial

from pydantic import JsonValue

from multicsr.config import Config, CurateConfig
from multicsr.execution.pool import Pool
from multicsr.execution.stage_runner import Stage, run_stage
from multicsr.observability.progress import Progress
from multicsr.rows import CURATED, SCORED
from multicsr.stages.curate.rule import CURATION_RULES, check_method, decide
from multicsr.storage.manifest import Manifest, base_fingerprint
from multicsr.storage.store import SCHEMA_VERSION
from multicsr.storage.versions import Snapshot


def curate(config: Config, snapshot: Snapshot, progress: Progress) -> Manifest:
    """Decide on every scored row and write an artifact `curated`, or reuse an existing one (MultiCSR Eq. 4).

    Returns:
        The manifest of the artifact.

    Raises:
        ConfigError: the rows were scored without the score that `curate.score` selects.
        RunError: rows were lost, a worker died repeatedly, or the disk is full.
    """
    scored = snapshot.manifest("scored")
    stage, settings = curate_stage(config.curate, scored), curate_settings(config, scored)
    return run_stage(stage, snapshot.store, scored, run=config.name, settings=settings, progress=progress)


def curate_settings(config: Config, scored: Manifest) -> dict[str, JsonValue]:
    """Return the settings that decide the curated artifact."""
    return {
        "curate": config.curate.model_dump(mode="json"),
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
