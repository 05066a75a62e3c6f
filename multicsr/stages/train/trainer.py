"""The training stage under Ray Train: curated and labelled rows to a model, on any number of workers.

This is the only module that starts Ray Train. The checkpoint that worker 0 writes is the only state of a run:
Ray's own run state is discarded, so that an old run is never resumed unnoticed. Every worker gets the same
task and finds its part by its number.
"""

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import cast

import pyarrow as pa
from pydantic import JsonValue

from multicsr.artifacts import LABELLED_ROWS, LOG, DevScore, Step, parse_log
from multicsr.config import Config
from multicsr.config.packages import parts_of_training
from multicsr.errors import ConfigError, RunError
from multicsr.execution.materialise import Artifact, materialise
from multicsr.execution.outcome import Outcome
from multicsr.execution.pool import Pool
from multicsr.execution.ray_session import start_ray
from multicsr.execution.shard_report import ShardReport
from multicsr.execution.stage_runner import PartShard, commit, map_shards
from multicsr.messages.foreign_errors import explain_error
from multicsr.observability.progress import Progress
from multicsr.rows import Reason
from multicsr.stages.ingest.leaks import Leaks, report_leaks
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.stages.train.data.extra_rows import write_triplets
from multicsr.stages.train.data.index import (
    columns_of,
    digest_labelled,
    digest_rows,
    with_negatives,
)
from multicsr.stages.train.data.withheld import withheld_reasons
from multicsr.stages.train.failures import Failures
from multicsr.stages.train.fingerprint import (
    deciding_files,
    deciding_rows,
    deciding_settings,
    num_triplets,
)
from multicsr.stages.train.monitoring.log_follower import followed_in
from multicsr.stages.train.objectives.load import load_objective
from multicsr.stages.train.recipe import resolved
from multicsr.stages.train.worker import INDEX, LABELLED_INDEX, TrainedModel, TrainingTask, work
from multicsr.storage.collected import unused
from multicsr.storage.manifest import Contents, Manifest, add_digests, base_fingerprint
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.versions import Snapshot

_ARTIFACT = "model"
"""Name of the artifact that this stage makes."""
_RAY_TRAIN_ENVIRONMENT = {
    # Seconds between two checks of the workers. The default of 2 s is added to every start and end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}


def train(
    config: Config,
    snapshot: Snapshot,
    progress: Progress,
    start: str | None = None,
    known: KnownTexts | None = None,
) -> Manifest:
    """Train on the curated rows under Ray Train and write the artifact `model`.

    A model that exists already for the same settings and the same rows is reused. A killed training resumes
    from its last checkpoint, on as many workers as there are then.

    Args:
        config: the configuration.
        snapshot: the fingerprints of the artifacts, which name the curated rows.
        progress: receives the steps.
        start: fingerprint of an artifact `model` whose encoder is trained further; None: `train.encoder` is
            trained.
        known: texts of the labelled sets. Rows with a sentence that they have too are reported and, with
            `evaluate.drop_leaks`, are not trained on.

    Returns:
        The manifest of the artifact `model`.

    Raises:
        ConfigError: a model or dev file cannot be used, there are too few rows, or more workers than GPUs.
        RunError: there are no curated rows, a loss is not finite, or workers died more often than allowed.
    """
    config = resolved(config)
    artifact = _artifact(config, snapshot, start, known)
    manifest = materialise(
        artifact, progress, lambda: _trained(config, snapshot, artifact, progress, start, known)
    )
    # A model that is reused may have such a folder, too, if its job died at this line.
    snapshot.store.delete(f"training/{artifact.fingerprint}")
    return manifest


def model_fingerprint(
    config: Config, snapshot: Snapshot, start: str | None = None, known: KnownTexts | None = None
) -> str:
    """Return the fingerprint that the artifact `model` has after `train` with the same arguments."""
    return _artifact(resolved(config), snapshot, start, known).fingerprint


def _artifact(config: Config, snapshot: Snapshot, start: str | None, known: KnownTexts | None) -> Artifact:
    """Return the artifact `model` that `train` makes with the same arguments."""
    settings = unused(snapshot.store, _settings(config, snapshot.manifest(config.train.rows), start, known))
    return Artifact(snapshot.store, "train", _ARTIFACT, config.name, settings, unit=None, summarise=_summary)


def _summary(model: Manifest) -> str:
    """Return the result of a training in one line."""
    counters = model.counters
    chosen_on = "dev" if "dev" in model.settings else "held-out triplets"
    is_chosen = "best_dev" in counters or "merge_weight" in counters
    best = "" if is_chosen else ", the last parameters: without train.dev nothing chose"
    if "best_dev" in counters:
        best = f", best dev {counters['best_dev']:.2f}"
    return (
        f"{int(counters['steps']):,} steps, loss {counters['loss']:.3f}{best}{_choice(counters, chosen_on)}"
    )


def _choice(counters: Mapping[str, float], chosen_on: str) -> str:
    """Return which candidate was published, and on what data it was chosen, if there were several."""
    if "merge_weight" not in counters:
        return ""
    weight, before = counters["merge_weight"], counters["dev_before"]
    if weight == 0:
        helped_not = f"; the training did not help ({chosen_on} before {before:.2f})"
        return f"{helped_not}: the encoder is published unchanged"
    what = "trained" if weight == 1 else f"merged {weight:.0%} trained"
    chance = " (within chance)" if counters.get("merge_low", 1.0) <= 0 else ""
    return f"; published: {what}, {chosen_on} {counters['merge_dev']:.2f}, before {before:.2f}{chance}"


def _trained(
    config: Config,
    snapshot: Snapshot,
    artifact: Artifact,
    progress: Progress,
    start: str | None,
    known: KnownTexts | None,
) -> Contents:
    """Train, and return the contents of the artifact.

    Raises:
        ConfigError, RunError: see `train`.
    """
    store, source = snapshot.store, snapshot.manifest(config.train.rows)
    training = f"training/{artifact.fingerprint}"
    labelled = _labelled(config, artifact)
    rows = round(source.rows_out * (1 - config.evaluate.held_out)) + labelled.rows_out
    batches = config.train.epochs * (rows // config.train.global_batch)
    progress.start("train", config.train.steps or batches // config.train.accumulate, "steps")
    with start_ray(config.train.workers * config.train.cpus_per_worker):
        check_resources(config)
        leaks = _make_indexes(config, store, source, labelled, training, known)
        unit = "triplets" if config.train.rows == "curated" else "sentences"
        of_all = f"{source.rows_out + labelled.rows_out:,} {unit}"
        report_leaks("train", of_all, leaks, config.evaluate.drop_leaks, progress)
        progress.announce(f"starting {config.train.workers} worker{'s' if config.train.workers > 1 else ''}")
        with followed_in(store, f"{training}/{LOG}", progress):
            trained = _run_workers(config, snapshot, artifact.fingerprint, start, labelled.files)
    log = next(entry for entry in trained.files if entry.path == f"{artifact.folder}/{LOG}")
    counters = _counters(store.read_verified(log).decode()) | {"workers": float(trained.num_workers)} | leaks
    if trained.merges:
        merges = trained.merges
        counters |= {"merge_weight": merges.chosen, "merge_dev": merges.winner.dev}
        counters["dev_before"] = merges.candidates[0].dev
        if merges.low is not None:
            counters["merge_low"] = merges.low
    if labelled.files:
        counters[LABELLED_ROWS] = float(labelled.rows_out)
    rejected = Counter(labelled.rejected) + Counter(trained.withheld)
    if trained.num_left_out:
        rejected[Reason.SAME_HYPOTHESES.value] += trained.num_left_out
    rows_in = source.rows_out + labelled.rows_in
    return Contents(
        rows_in=rows_in,
        rows_out=rows_in - rejected.total(),
        rejected=dict(rejected),
        rows_digest=add_digests([source.rows_digest, labelled.rows_digest]),
        files=[*trained.files, *labelled.files],
        reject_files=labelled.reject_files,
        counters=counters,
    )


def _labelled(config: Config, artifact: Artifact) -> Contents:
    """Write the labelled triplets of `train.extra_triplets` into the artifact, if there are any."""
    if not config.train.extra_triplets:
        return Contents()
    num_rows = num_triplets(artifact.settings)
    return write_triplets(config.train.extra_triplets, num_rows, artifact.store, artifact.folder)


def check_resources(config: Config) -> None:
    """Raise if Ray would wait without end for more GPUs or CPUs than there are.

    Only a Ray session that this command started is checked. An existing cluster (RAY_ADDRESS) may grow.

    Raises:
        ConfigError: the workers need more GPUs or CPUs than there are.
    """
    import ray

    train = config.train
    if os.environ.get("RAY_ADDRESS"):
        return
    have, workers = ray.cluster_resources(), train.min_workers or train.workers
    gpus = have.get("GPU", 0)
    if workers * train.gpus_per_worker > gpus:
        raise ConfigError(
            f"train.workers: {workers} workers with {train.gpus_per_worker:g} GPU each, and this machine has "
            f"{gpus:g}; set train.workers or train.gpus_per_worker lower"
        )
    if workers * train.cpus_per_worker > have["CPU"]:
        raise ConfigError(
            f"train.workers: {workers} workers with {train.cpus_per_worker:g} CPU each, and Ray has "
            f"{have['CPU']:g}; set train.workers or train.cpus_per_worker lower"
        )


def _settings(
    config: Config, source: Manifest, start: str | None, known: KnownTexts | None = None
) -> dict[str, JsonValue]:
    """Return everything that decides the model; models and the dev file are included as content hashes."""
    return {
        "train": deciding_settings(config.train),
        "seed": config.seed,
        "input": f"{base_fingerprint(source.fingerprint)}:{source.rows_digest}",
        **deciding_rows(config, known),
        **deciding_files(config.train, start and base_fingerprint(start)),
    }


def _make_indexes(
    config: Config,
    store: Store,
    source: Manifest,
    labelled: Contents,
    training: str,
    known: KnownTexts | None,
) -> Counter[str]:
    """Write the index of all rows into the folder of the training, and return the counters of their leaks."""
    objective = config.train.objective
    columns = ["row_id", *columns_of(objective)]
    texts_read = ["row_id", *load_objective(objective).sentences]
    packages = parts_of_training(config.train)

    def curated_part(entry: FileEntry) -> tuple[pa.Table, Leaks]:
        """Return the part of the index of a curated file."""
        for package in packages:
            package.require_same()
        rows = store.read_table(entry, columns)
        texts = rows.select(texts_read)
        held_out, drops = config.evaluate.held_out, config.evaluate.drop_leaks
        reason_R, leaks = withheld_reasons(texts, held_out, known, drops)
        return digest_rows(rows, objective, reason_R), leaks

    def labelled_part(entry: FileEntry) -> tuple[pa.Table, Leaks]:
        """Return the part of the index of a labelled file, of which no row is held out."""
        for package in packages:
            package.require_same()
        rows = store.read_table(entry)
        texts = with_negatives(rows).select(texts_read)
        reason_R, leaks = withheld_reasons(texts, 0.0, known, config.evaluate.drop_leaks)
        return digest_labelled(rows, objective, reason_R), leaks

    leaks = _make_index(store, source.files, curated_part, f"{training}/{INDEX}")
    return leaks + _make_index(store, labelled.files, labelled_part, f"{training}/{LABELLED_INDEX}")


def _make_index(
    store: Store,
    files: Sequence[FileEntry],
    make_part: Callable[[FileEntry], tuple[pa.Table, Leaks]],
    folder: str,
) -> Counter[str]:
    """Write one part of the index for every file of rows into `folder`; existing parts are reused.

    Returns:
        Counters of the leaks in all files.
    """

    def work(shard: PartShard) -> ShardReport:
        """Write the part of one file."""
        part, leaks = make_part(shard.entry)
        return commit(
            store,
            folder,
            ShardReport(
                key=shard.key,
                rows_in=part.num_rows,
                rows_out=part.num_rows,
                counters=leaks.counters(),
                files=[store.write_table(f"{folder}/rows/{shard.key}.parquet", part)],
            ),
        )

    shards = [*map(PartShard, files)]
    counters: Counter[str] = Counter()
    for report in map_shards("train", lambda: work, store, folder, shards, Pool(shards_per_task=8)):
        counters.update(report.counters)
    return counters


def _run_workers(
    config: Config, snapshot: Snapshot, key: str, start: str | None, labelled: list[FileEntry]
) -> TrainedModel:
    """Train in Ray Train's workers and return the result of worker 0.

    Raises:
        ConfigError, RunError: see `train`.
    """
    for name, value in _RAY_TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    train, store = config.train, snapshot.store
    failures = Failures(store, key)
    failures.clear()
    resources = {"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker}
    task = TrainingTask(
        config=config,
        store=store,
        snapshot=snapshot,
        key=key,
        start=start,
        packages=parts_of_training(config.train),
        labelled=labelled,
        folder=Path.cwd(),
    )
    # A local directory is enough: only Ray's controller, which runs on this machine, writes to it.
    with tempfile.TemporaryDirectory(prefix="multicsr-") as ray_state:
        trainer = TorchTrainer(
            work,
            train_loop_config=task,
            scaling_config=ScalingConfig(
                num_workers=(train.min_workers, train.workers) if train.min_workers else train.workers,
                use_gpu=train.gpus_per_worker > 0,
                resources_per_worker={resource: amount for resource, amount in resources.items() if amount},
                label_selector={**train.nodes} or None,
            ),
            run_config=RunConfig(
                name=f"{config.name}-{key}",
                storage_path=ray_state,
                failure_config=FailureConfig(max_failures=train.max_restarts),
                worker_runtime_env={"env_vars": _worker_environment()},
            ),
        )
        # Ray Train would end the process with exit code 0 on Ctrl-C, and would not remove its signal handler.
        trainer._register_sigint_handler = lambda controller: None
        try:
            outcome = cast("Outcome[TrainedModel]", trainer.fit().return_value)
        except TrainingFailedError as error:
            # The error may be only in the records: Ray may not have started another worker, which returns it.
            if (final := failures.final()) is not None:
                raise final from error
            raise RunError(f"train: {explain_error(error)}; {failures.advice()}") from error
    return outcome.take()


def _worker_environment() -> dict[str, str]:
    """Return the environment of the workers, and of the scorers and the evaluation on the same cores."""
    # A thread that waits by spinning takes the core from another process: on two cores the demo's step took
    # twice as long. A worker alone on its node would be 10 % to 20 % faster with ACTIVE.
    return {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}


def _counters(log: str) -> dict[str, float]:
    """Return the counters of the manifest from the text of the log.

    `loss` is the mean over the last epoch, `masked` the mean over all steps, and times (s) are sums over all
    steps.
    """
    lines = parse_log(log)
    steps = [line for line in lines if isinstance(line, Step)]
    devs = [line for line in lines if isinstance(line, DevScore)]
    last = [step for step in steps if step.epoch == steps[-1].epoch]
    counters = {
        "steps": float(len(steps)),
        "loss": fmean(step.loss for step in last),
        "masked": fmean(step.masked for step in steps),
        "train_s": sum(step.seconds for step in steps),
        "ingest_wait_s": sum(step.ingest_wait_s for step in steps),
        "mask_wait_s": sum(step.mask_wait_s for step in steps),
    }
    for dev in devs:
        if dev.step == 0:
            counters["dev_before"] = dev.dev
        if dev.best:
            counters |= {"best_dev": dev.dev, "best_step": float(dev.step)}
    return counters
