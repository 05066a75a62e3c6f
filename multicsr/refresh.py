"""A night: the corpus as it is now to the next version, and a new model only if it is not worse.

Ingest reads the files that changed, generate writes for the sentences that are new, curate decides on all.
Training runs when enough of the curated rows changed. What is published is one version: tonight's rows, with
tonight's model or, when that got worse, the one before.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from multicsr import pipeline
from multicsr.compare import Difference, compare, write_removed
from multicsr.config import Config
from multicsr.draft import Draft, drafting
from multicsr.errors import ConfigError, RunError
from multicsr.evaluate import evaluate_run
from multicsr.history import Night, append
from multicsr.manifest import Manifest, now, read_manifest
from multicsr.progress import Progress
from multicsr.ray_start import ray_at_need
from multicsr.train.plan import deciding_settings
from multicsr.train.trainer import train
from multicsr.versions import TOMBSTONES, Rooms

_CONTENT = ("text", "entailment", "contradiction")


@dataclass(frozen=True)
class _Model:
    """What became of the model tonight."""

    decision: str
    seconds: float = 0.0
    """Of training."""
    changed: float = 0.0
    """Share of the curated rows."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)


def refresh(config: Config, progress: Progress) -> Night:
    """Bring a store up to date with its source; returns what happened, as the history keeps it.

    Raises:
        ConfigError: no `evaluate.data`, by which a model is promoted; see the stages.
        RunError: another job is at work; see the stages. The version before stays.
    """
    if not config.evaluate.data:
        raise ConfigError("evaluate.data is empty: a refresh promotes a model by its figures; name TSV files")
    started, began_s = now(), time.monotonic()
    with drafting(config, "refresh", progress) as draft, ray_at_need(pipeline.largest_pool(config)):
        before = draft.rooms
        news = _bring_rows_up_to_date(config, draft, progress)
        model = _model(config, draft, before, progress)
        is_published = draft.publish() is not None
        night = Night(
            started=started,
            seconds=round(time.monotonic() - began_s, 3),
            outcome="published" if is_published else "nothing new",
            version=draft.number,
            sentences=news.now,
            new=news.new,
            removed=news.removed,
            curated=draft.rooms.manifest("curated").rows_out,
            curated_changed=round(model.changed, 6),
            metrics=dict(model.metrics),
            metrics_before=dict(model.before),
            decision=model.decision,
            **_costs(config, draft.rooms.manifest("scored"), started, model.seconds),
        )
        append(draft.store, night)
        pipeline.report(config, draft, progress)
    return night


def _costs(config: Config, scored: Manifest, started: str, train_s: float) -> "_Costs":
    """What the LLM did tonight, and the GPUs."""
    # A room that was made on another night cost nothing tonight. Both are UTC in one format.
    counted = scored.counters if scored.created >= started else {}
    gpu_s = counted.get("worker_seconds", 0.0) * config.generate.gpus_per_actor
    gpu_s += train_s * config.train.workers * config.train.gpus_per_worker
    return {
        "rows_written": int(counted.get("rows_written", 0)),
        "rows_scored": int(counted.get("rows_scored", 0)),
        "tokens": int(counted.get("generated_tokens", 0)),
        "gpu_seconds": round(gpu_s, 3),
        "cost": round(gpu_s / 3600 * config.refresh.price_per_gpu_hour, 4),
    }


class _Costs(TypedDict):
    rows_written: int
    rows_scored: int
    tokens: int
    gpu_seconds: float
    cost: float


def _bring_rows_up_to_date(config: Config, draft: Draft, progress: Progress) -> Difference:
    """Ingest, generate, curate; returns how the sentences differ from those before."""
    before = draft.rooms
    old = before.manifest("sentences") if "sentences" in before else None
    new = pipeline.ingest(config, draft, progress)
    difference = compare(draft.store, old, new)
    if old is not None and old.rows_digest == new.rows_digest:
        draft.keep("sentences")  # a touched file, or a sentence that is now in another one, is no news
    elif old is not None and difference.removed:
        write_removed(draft.store, old, new, f"{TOMBSTONES}/{new.fingerprint}")
    pipeline.generate(config, draft, progress)
    pipeline.curate(config, draft, progress)
    return difference


def _model(config: Config, draft: Draft, before: Rooms, progress: Progress) -> _Model:
    """Train when there is reason to, and promote what is not worse."""
    if "model" not in before:
        started = time.monotonic()
        pipeline.train(config, draft, progress)
        seconds = time.monotonic() - started
        figures = pipeline.evaluate(config, draft, progress).counters
        return _Model("the first model", seconds, 1.0, figures)
    old, curated = before.manifest("model"), draft.rooms.manifest("curated")
    is_other_training = old.settings["train"] != deciding_settings(config.train)
    changed = compare(draft.store, _trained_on(before, old), curated, _CONTENT).share
    if not is_other_training:
        if draft.rooms.fingerprints["curated"] == before.fingerprints.get("curated"):
            return _Model("kept: the triplets are the same as last time", changed=changed)
        if changed < config.refresh.retrain_share:
            limit = f"refresh.retrain_share is {config.refresh.retrain_share:.1%}"
            return _Model(f"kept: {changed:.1%} of its triplets changed, {limit}", changed=changed)
    return _challenge(config, draft, before, changed, progress)


def _challenge(config: Config, draft: Draft, before: Rooms, changed: float, progress: Progress) -> _Model:
    """Train tonight's model and let the figures decide."""
    started = time.monotonic()
    start = before.fingerprints["model"] if config.refresh.start == "last" else None
    draft.add("model", train(config, draft.rooms, progress, start=start))
    seconds = time.monotonic() - started
    theirs = evaluate_run(config, before, progress).counters
    ours = pipeline.evaluate(config, draft, progress).counters
    worse = fallen(theirs, ours, config)
    if worse:
        draft.keep("model", "evaluation")
    decision = f"not promoted: {'; '.join(worse)}" if worse else "promoted"
    return _Model(decision, seconds, changed, ours, theirs)


def fallen(before: Mapping[str, float], after: Mapping[str, float], config: Config) -> list[str]:
    """The metrics that fell by more than their tolerance, each in words."""
    allowed = {name: config.refresh.tolerances.get(name, config.refresh.tolerance) for name in before}
    return [
        f"{name} fell by {before[name] - after[name]:.2f}, from {before[name]:.2f} to {after[name]:.2f} "
        f"(tolerance {allowed[name]:g})"
        for name in before
        if before[name] - after[name] > allowed[name]
    ]


def _trained_on(rooms: Rooms, model: Manifest) -> Manifest | None:
    """The curated room a model was trained on; None when it was deleted since."""
    key = str(model.settings["input"]).partition(":")[0]
    try:
        return read_manifest(rooms.store, "curated", key)
    except RunError:
        return None
