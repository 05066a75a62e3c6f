"""The one door to Ray Train: curated rows to a model, on any number of workers.

The checkpoint that worker 0 writes is the only memory of a run: Ray's run state is thrown away, so that an
old run is never silently continued. Every worker gets the same task and finds its part by its number.
"""

import hashlib
import logging
import os
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import cast

from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import ConfigError, MulticsrError, RunError
from multicsr.evaluate import read_task
from multicsr.manifest import Manifest, fingerprint, new_manifest, write_manifest
from multicsr.models import digest_model, resolve_model
from multicsr.progress import Progress
from multicsr.ray_stage import PartShard, Pool, commit, map_shards, reusable
from multicsr.ray_start import start_ray
from multicsr.rows import Reason
from multicsr.storage.copies import local_copy
from multicsr.store import Store
from multicsr.tally import ShardReport
from multicsr.train.follow import followed_in
from multicsr.train.index import columns_of, digest_rows
from multicsr.train.log import LOG, DevScore, Step, parse_log
from multicsr.train.plan import deciding_settings
from multicsr.train.worker import ERROR, INDEX, Task, Trained, work
from multicsr.versions import Rooms

_ROOM = "model"
_RAY_TRAIN_ENVIRONMENT = {
    # Seconds between two looks at the workers: the default of 2 is added to every start and end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}


def train(config: Config, rooms: Rooms, progress: Progress, start: str | None = None) -> Manifest:
    """Train on the curated rows under Ray Train; returns the manifest of a room `model`.

    What was trained already with the same settings on the same rows is not trained again; a killed
    training goes on from its last checkpoint, on as many workers as there are then.

    Args:
        start: fingerprint of a room `model` whose encoder is trained further; None: `train.encoder` is.

    Raises:
        ConfigError: a model or dev file that cannot be used, too few rows, more workers than GPUs.
        RunError: no curated rows, a loss that is not finite, a worker that died again and again.
    """
    started, store = time.monotonic(), rooms.store
    source = rooms.manifest("curated")
    settings = _settings(config, source, start)
    key = fingerprint(settings)
    if made := reusable(store, _ROOM, key):
        progress.start("train", None, "steps")
        progress.finish(f"{int(made.counters['steps']):,} steps; reused")
        return made
    batches = config.train.epochs * (source.rows_out // config.train.global_batch)
    progress.start("train", config.train.steps or batches // config.train.accumulate, "steps")
    with start_ray(config.train.workers * config.train.cpus_per_worker):
        check_resources(config)
        _make_index(config, store, source, f"training/{key}/{INDEX}")
        with followed_in(store, f"training/{key}/{LOG}", progress):
            trained = _run_workers(config, rooms, key, start)
    counters = _counters(store.read_text(f"{_ROOM}/{key}/{LOG}")) | {"workers": float(trained.num_workers)}
    manifest = new_manifest(
        "train",
        config.name,
        settings,
        time.monotonic() - started,
        rows_in=source.rows_out,
        rows_out=source.rows_out - trained.num_left_out,
        rejected={Reason.SAME_HYPOTHESES.value: trained.num_left_out} if trained.num_left_out else {},
        rows_digest=source.rows_digest,
        files=trained.files,
        counters=counters,
    )
    write_manifest(store, _ROOM, manifest)
    store.delete(f"training/{key}")
    best = f", best dev {counters['best_dev']:.2f}" if "best_dev" in counters else ""
    progress.finish(f"{int(counters['steps']):,} steps, loss {counters['loss']:.3f}{best}")
    return manifest


def check_resources(config: Config) -> None:
    """Refuse what Ray would wait for without end.

    A cluster that was there before may grow; of one that was started for this command all is known.

    Raises:
        ConfigError: more workers than GPUs or CPUs.
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


def _settings(config: Config, source: Manifest, start: str | None) -> dict[str, JsonValue]:
    """Everything that decides the model; models and the dev file enter with their bytes."""
    train = config.train
    settings: dict[str, JsonValue] = {
        "train": deciding_settings(train),
        "seed": config.seed,
        "input": f"{source.fingerprint}:{source.rows_digest}",
        "encoder_weights": start or digest_model(resolve_model(train.encoder, "train.encoder")),
    }
    if train.mask is not None:
        settings["mask_weights"] = digest_model(resolve_model(train.mask.model, "train.mask.model"))
    if train.dev is not None:
        read_task(train.dev)  # a broken file is refused now, not minutes later
        data = local_copy(train.dev).read_bytes()
        settings["dev_bytes"] = hashlib.blake2b(data, digest_size=16).hexdigest()
    return settings


def _make_index(config: Config, store: Store, source: Manifest, folder: str) -> None:
    """Write the numbers of every curated file beside each other; what is there is not made again."""
    objective = config.train.objective
    columns = ["row_id", *columns_of(objective)]

    def work(shard: PartShard) -> ShardReport:
        part = digest_rows(store.read_table(shard.path, columns), objective)
        return commit(
            store,
            folder,
            ShardReport(
                key=shard.key,
                rows_in=part.num_rows,
                rows_out=part.num_rows,
                rejected={},
                rows_digest="",
                seconds=0,
                counters={},
                files=[store.write_table(f"{folder}/rows/{shard.key}.parquet", part)],
                reject_files=[],
            ),
        )

    shards = [PartShard(entry.path) for entry in source.files]
    for _ in map_shards("train", lambda: work, store, folder, shards, Pool(shards_per_task=8)):
        pass


def _run_workers(config: Config, rooms: Rooms, key: str, start: str | None) -> Trained:
    """Train in Ray Train's workers."""
    for name, value in _RAY_TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    train, store = config.train, rooms.store
    store.delete(f"training/{key}/{ERROR}")
    resources = {"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker}
    task = Task(config=config, store=store, rooms=rooms, key=key, start=start, folder=Path.cwd())
    # Ray's controller, which runs on this machine, is the only one to write there.
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
        try:
            outcome = cast("Trained | MulticsrError", trainer.fit().return_value)
        except TrainingFailedError as error:
            cause = str(error).strip().splitlines()[-1]
            raise RunError(f"train: {cause}; the last checkpoint is kept, run the command again") from error
    if isinstance(outcome, MulticsrError):
        raise outcome
    return outcome


def _worker_environment() -> dict[str, str]:
    """Of workers, and of the scorers and the evaluation that they start, which share their cores."""
    # A thread that waits by spinning takes the core from a neighbour: on two cores the demo's step took twice
    # as long. A worker alone on its node would be a tenth or a fifth faster with ACTIVE.
    return {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}


def _counters(log: str) -> dict[str, float]:
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
