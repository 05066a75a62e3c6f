"""Refresh run: the incremental update of a store from its source.

Ingest reads the files that changed, generate writes triplets for the new sentences, and curate decides on all
rows. Training runs if enough of the curated rows changed. One version is published: it contains the new rows
and either the new model or, if a metric of that model regressed, the previous model.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from multicsr.config import Config
from multicsr.errors import ConfigError, DamagedFileError, RunError
from multicsr.execution.ray_session import lazy_ray_session
from multicsr.observability.progress import Progress
from multicsr.pipeline import full_run
from multicsr.pipeline.diff import Difference, compare, write_removed
from multicsr.pipeline.preflight import require_no_problems
from multicsr.stages.evaluate import FoundTasks, evaluate_run, find_tasks
from multicsr.stages.train.fingerprint import (
    DATA_SETTINGS,
    ROW_SETTINGS,
    deciding_data,
    deciding_rows,
    deciding_settings,
)
from multicsr.stages.train.recipe import resolved
from multicsr.stages.train.trainer import model_fingerprint, train
from multicsr.storage import refresh_costs
from multicsr.storage.collected import unused_name
from multicsr.storage.manifest import Manifest, now, read_manifest
from multicsr.storage.promotion import check_tolerances, references, regressions
from multicsr.storage.refresh_log import RefreshRun
from multicsr.storage.store import Store
from multicsr.storage.transaction import Transaction, open_transaction, rejection
from multicsr.storage.versions import ARTIFACTS, TOMBSTONES, Snapshot, versions

_log = logging.getLogger(__name__)
_CONTENT = ("text", "entailment", "contradiction")


@dataclass(frozen=True)
class _Model:
    """Decision on the model in this run."""

    decision: str
    """Decision and its reason, in words."""
    changed: float = 0.0
    """Share of the curated rows that changed since the previous model was trained, in [0, 1]."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the model that was trained in this run, promoted or not; empty without one."""
    before: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the previous model on the same tasks; empty if it was not compared."""


def refresh(config: Config, progress: Progress) -> RefreshRun:
    """Update a store from its source and publish the result as one version.

    Returns:
        The record of the refresh run, as the refresh log keeps it.

    Raises:
        ConfigError: `evaluate.data` is empty, so that no model could be promoted; see also the stages.
        RunError: another job holds the lease, or too many sentences were removed; see also the stages. The
            current version stays as it is.
    """
    if not config.evaluate.data:
        raise ConfigError(
            "evaluate.data is empty: a refresh needs metrics to decide on a model; name labelled files"
        )
    if config.train.rows == "sentences":
        raise ConfigError("train.rows: a refresh retrains by how many triplets changed; set it to curated")
    require_no_problems(full_run.STAGES, config)
    # Read once, so that both models are measured on the same data.
    tasks = find_tasks(config.evaluate.data, kinds=config.evaluate.kinds)
    check_tolerances(config, tasks.digests)
    known = full_run.labels_of(config)
    started, began_s = now(), time.monotonic()
    with (
        open_transaction(config, "refresh", progress) as transaction,
        lazy_ray_session(full_run.largest_pool(config), progress.announce),
    ):
        before = transaction.snapshot
        news = _bring_rows_up_to_date(config, transaction, known, progress)
        model = _model(config, transaction, before, known, tasks, progress)
        cost, costs = refresh_costs.booked(transaction.store)
        refresh_run = RefreshRun(
            started=started,
            seconds=round(time.monotonic() - began_s, 3),
            outcome="published" if transaction.is_changed else "nothing new",
            version=transaction.next_number,
            sentences=news.now,
            new=news.new,
            removed=news.removed,
            rows_written=cost.rows_written,
            rows_scored=cost.rows_scored,
            tokens=cost.tokens,
            curated=transaction.snapshot.manifest("curated").rows_out,
            curated_changed=round(model.changed, 6),
            gpu_seconds=round(cost.gpu_seconds, 3),
            cost=round(cost.gpu_seconds / 3600 * config.refresh.price_per_gpu_hour, 4),
            metrics=dict(model.metrics),
            metrics_before=dict(model.before),
            decision=model.decision,
        )
        transaction.check()
        artifacts = dict(transaction.snapshot.fingerprints)
        refresh_costs.begin_closing(transaction.store, refresh_run, artifacts, costs)
        transaction.publish()
        refresh_costs.complete(transaction.store)
        full_run.report(config, transaction, progress)
    return refresh_run


def _bring_rows_up_to_date(
    config: Config, transaction: Transaction, known: full_run.Known, progress: Progress
) -> Difference:
    """Run ingest, generate and curate.

    Returns:
        The difference between the new sentences and those of the current version.
    """
    before = transaction.snapshot
    old = before.manifest("sentences") if "sentences" in before else None
    new = full_run.ingest(config, transaction, progress)
    difference = compare(transaction.store, old, new)
    _check_removed(config, difference)
    if old is not None and old.rows_digest == new.rows_digest:
        transaction.keep(
            "sentences"
        )  # same sentences: only file times, or the files that contain them, changed
    elif old is not None and difference.removed:
        transaction.check()
        write_removed(transaction.store, old, new, f"{TOMBSTONES}/{new.fingerprint}")
    full_run.generate(config, transaction, progress, known)
    full_run.curate(config, transaction, progress)
    return difference


def _check_removed(config: Config, difference: Difference) -> None:
    """Raise RunError if more sentences were removed than `refresh.max_removed` allows."""
    share = difference.removed / max(difference.before, 1)
    if share > config.refresh.max_removed:
        raise RunError(
            f"refresh: {difference.removed:,} of {difference.before:,} sentences ({share:.1%}) are gone from "
            f"input.paths, and refresh.max_removed is {config.refresh.max_removed:g}; nothing was published. "
            "See whether a file is missing; where it is meant, run once with --set refresh.max_removed=1"
        )


def _model(
    config: Config,
    transaction: Transaction,
    before: Snapshot,
    known: full_run.Known,
    tasks: FoundTasks,
    progress: Progress,
) -> _Model:
    """Train if there is a reason, and promote the model if no metric regressed.

    If the resulting version was rolled back from earlier, all artifacts stay as they are.
    """
    model = _new_model(config, transaction, before, known, tasks, progress)
    return _rejected(transaction, transaction.snapshot.fingerprints, model.changed) or model


def _new_model(
    config: Config,
    transaction: Transaction,
    before: Snapshot,
    known: full_run.Known,
    tasks: FoundTasks,
    progress: Progress,
) -> _Model:
    if "model" not in before:
        return _Model("the first model", 1.0, _train(config, transaction, None, known, tasks, progress))
    old, curated = before.manifest("model"), transaction.snapshot.manifest("curated")
    changed = _changed_share(transaction.store, _trained_on(before, old), curated)
    if not _is_other_training(config, old, known):
        if transaction.snapshot.fingerprints["curated"] == before.fingerprints.get("curated"):
            return _Model("kept: the triplets are the same as last time", changed)
        if changed < config.refresh.retrain_share:
            limit = f"refresh.retrain_share is {config.refresh.retrain_share:.1%}"
            return _Model(f"kept: {changed:.1%} of its triplets changed, {limit}", changed)
    return _challenge(config, transaction, before, changed, known, tasks, progress)


def _is_other_training(config: Config, old: Manifest, known: full_run.Known) -> bool:
    """Return whether settings or labelled data differ from those that a model was trained with."""
    data = deciding_rows(config, known()) | deciding_data(config.train)
    settings = deciding_settings(resolved(config).train)
    old_data = {name: old.settings[name] for name in (*ROW_SETTINGS, *DATA_SETTINGS) if name in old.settings}
    return old.settings["train"] != settings or old_data != data


def _challenge(
    config: Config,
    transaction: Transaction,
    before: Snapshot,
    changed: float,
    known: full_run.Known,
    tasks: FoundTasks,
    progress: Progress,
) -> _Model:
    """Train a new model, and keep it only if no metric regressed."""
    start = before.fingerprints["model"] if config.refresh.start == "last" else None
    candidate = {
        **transaction.snapshot.fingerprints,
        "model": model_fingerprint(config, transaction.snapshot, start, known()),
    }
    if rejected := _rejected(transaction, candidate, changed):
        return rejected
    ours = _train(config, transaction, start, known, tasks, progress)
    measured = evaluate_run(config, before, progress, tasks, known).counters
    # Held-out triplets differ from version to version, so their metrics decide nothing.
    theirs = {name: value for name, value in measured.items() if name in tasks.digests}
    best = references(theirs, versions(transaction.store), tasks.digests, config)
    worse = regressions(best, ours, config)
    if worse:
        transaction.keep("model", "evaluation")
    decision = f"not promoted: {'; '.join(worse)}" if worse else "promoted"
    return _Model(decision, changed, ours, theirs)


def _train(
    config: Config,
    transaction: Transaction,
    start: str | None,
    known: full_run.Known,
    tasks: FoundTasks,
    progress: Progress,
) -> Mapping[str, float]:
    """Train a model, add it to the transaction, evaluate it and return its metrics."""
    with refresh_costs.book_gpus(transaction.store, config.train.workers * config.train.gpus_per_worker):
        transaction.add("model", train(config, transaction.snapshot, progress, start, known()))
    return full_run.evaluate(config, transaction, progress, known, tasks).counters


def _rejected(transaction: Transaction, artifacts: Mapping[str, str], changed: float) -> _Model | None:
    """Keep all current artifacts if a version with these triplets and this model was rolled back from.

    Returns:
        The decision, or None if there is no such version.
    """
    version = transaction.rejected(artifacts)
    if version is None:
        return None
    transaction.keep(*ARTIFACTS)
    allow = f"`multicsr rollback CONFIG --to {version.number}` publishes it again"
    return _Model(f"kept: {rejection(version)}; {allow}", changed)


def _changed_share(store: Store, trained_on: Manifest | None, curated: Manifest) -> float:
    """Return the share of the triplets that changed since the training.

    If a file of either is damaged, it is 1: nothing makes the triplets of an old training again, and those of
    this run are read by the training, which reports the damage.
    """
    try:
        return compare(store, trained_on, curated, _CONTENT).share
    except DamagedFileError as error:
        _log.warning("%s; all triplets count as changed", str(error).partition(";")[0])
        return 1.0


def _trained_on(snapshot: Snapshot, model: Manifest) -> Manifest | None:
    """Return the manifest of the triplets that a model was trained on; None if it is missing or damaged."""
    key = str(model.settings["input"]).partition(":")[0]
    try:
        return read_manifest(snapshot.store, "curated", unused_name(snapshot.store, key))
    except DamagedFileError:
        return None
