"""The one door to Ray Train: curated rows to the published model.

One worker for now. Its own checkpoint is the only memory of a run: Ray's run state is thrown away, so that
an old run is never silently continued.
"""

import hashlib
import logging
import os
import shutil
import time
from pathlib import Path
from typing import TypedDict, cast

import pyarrow as pa
from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import ConfigError, MulticsrError, RunError
from multicsr.evaluate import read_task
from multicsr.manifest import Manifest, code_version, fingerprint, iter_tables, now, read_manifest
from multicsr.models import digest_model, resolve_model
from multicsr.progress import Progress
from multicsr.ray_stage import start_ray
from multicsr.rows import Reason
from multicsr.store import Store
from multicsr.train.follow import followed
from multicsr.train.log import LOG, DevScore, Step, read_log
from multicsr.train.publish import heal, publish_model

_COLUMNS = ["row_id", "text", "entailment", "contradiction"]
_RESTARTS = 2
_NO_RESULT = {"cpus_per_worker", "gpus_per_worker", "workers"}
"""Settings of `train` that do not decide the model."""
_RAY_TRAIN_ENVIRONMENT = {
    # Seconds between two looks at the worker: the default of 2 is added to every start and end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}


class _Task(TypedDict):
    """What the worker is told."""

    config: Config
    store: Store
    out: Path
    folder: Path
    """Where the command was given: paths in the configuration are relative to it."""


def train(config: Config, store: Store, progress: Progress) -> Manifest:
    """Train on the curated rows under Ray Train and publish `model/`; the old model stays until then.

    What was trained already with the same settings on the same rows is not trained again; a killed
    training goes on from its last checkpoint.

    Raises:
        ConfigError: more than one worker, a model or dev file that cannot be used, too few rows.
        RunError: no curated rows, a loss that is not finite, a worker that died again and again.
    """
    started = time.monotonic()
    if config.train.workers > 1:
        raise ConfigError("train.workers: more than one worker is not supported yet; set it to 1")
    source = read_manifest(store, "curated")
    settings = _settings(config, source)
    key = fingerprint(settings)
    heal(store)
    if store.exists("model/manifest.json") and (old := read_manifest(store, "model")).fingerprint == key:
        progress.start("train", None, "steps")
        progress.finish(f"{int(old.counters['steps']):,} steps; reused")
        return old
    out = store.local(f"training/{key}")
    steps = config.train.steps or config.train.epochs * (source.rows_out // config.train.global_batch)
    progress.start("train", steps, "steps")
    with start_ray(config.train.cpus_per_worker), followed(out / LOG, progress):
        left_out = _run_worker(config, store, out, run=f"{config.name}-{key}")
    counters = _counters(out / LOG)
    manifest = Manifest(
        stage="train",
        run=config.name,
        fingerprint=key,
        code_version=code_version(),
        settings=settings,
        created=now(),
        seconds=time.monotonic() - started,
        rows_in=source.rows_out,
        rows_out=source.rows_out - left_out,
        rejected={Reason.SAME_HYPOTHESES.value: left_out} if left_out else {},
        rows_digest=source.rows_digest,
        files=[],
        reject_files=[],
        counters=counters,
    )
    publish_model(store, out, manifest)
    best = f", best dev {counters['best_dev']:.2f}" if "best_dev" in counters else ""
    progress.finish(f"{int(counters['steps']):,} steps, loss {counters['loss']:.3f}{best}")
    return manifest


def _settings(config: Config, source: Manifest) -> dict[str, JsonValue]:
    """Everything that decides the model; models and the dev file enter with their bytes."""
    train = config.train
    settings: dict[str, JsonValue] = {
        "train": train.model_dump(mode="json", exclude=_NO_RESULT),
        "seed": config.seed,
        "input": f"{source.fingerprint}:{source.rows_digest}",
        "encoder_weights": digest_model(resolve_model(train.encoder, "train.encoder")),
    }
    if train.mask is not None:
        settings["mask_weights"] = digest_model(resolve_model(train.mask.model, "train.mask.model"))
    if train.dev is not None:
        read_task(train.dev)  # a broken file is refused now, not minutes later
        settings["dev_bytes"] = hashlib.blake2b(Path(train.dev).read_bytes(), digest_size=16).hexdigest()
    return settings


def _run_worker(config: Config, store: Store, out: Path, run: str) -> int:
    """Train in a Ray Train worker; returns the number of rows that were left out."""
    for name, value in _RAY_TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    ray_state = out / "ray"
    shutil.rmtree(ray_state, ignore_errors=True)
    resources = {"CPU": config.train.cpus_per_worker, "GPU": config.train.gpus_per_worker}
    trainer = TorchTrainer(
        _work,
        train_loop_config=_Task(config=config, store=store, out=out, folder=Path.cwd()),
        scaling_config=ScalingConfig(
            num_workers=config.train.workers,
            use_gpu=config.train.gpus_per_worker > 0,
            resources_per_worker={resource: amount for resource, amount in resources.items() if amount},
        ),
        run_config=RunConfig(
            name=run,
            storage_path=str(ray_state),
            failure_config=FailureConfig(max_failures=_RESTARTS),
        ),
    )
    try:
        outcome = cast("int | MulticsrError", trainer.fit().return_value)
    except TrainingFailedError as error:
        cause = str(error).strip().splitlines()[-1]
        raise RunError(f"train: {cause}; the last checkpoint is kept, run the command again") from error
    if isinstance(outcome, MulticsrError):
        raise outcome
    return outcome


def _work(task: _Task) -> int | MulticsrError:
    """Runs in the worker. An expected error travels back as a value: Ray would retry an exception."""
    import torch

    from multicsr.train.loop import fit

    config, store = task["config"], task["store"]
    os.chdir(task["folder"])
    torch.set_num_threads(max(1, int(config.train.cpus_per_worker)))
    try:
        rows = pa.concat_tables(iter_tables(store, read_manifest(store, "curated"), _COLUMNS))
        return fit(config.train, rows, seed=config.seed, out=task["out"]).num_left_out
    except MulticsrError as error:
        return error


def _counters(log: Path) -> dict[str, float]:
    lines = read_log(log)
    steps = [line for line in lines if isinstance(line, Step)]
    devs = [line for line in lines if isinstance(line, DevScore)]
    last = [step for step in steps if step.epoch == steps[-1].epoch]
    counters = {
        "steps": float(len(steps)),
        "loss": sum(step.loss for step in last) / len(last),
        "masked": sum(step.masked for step in steps) / len(steps),
    }
    for dev in devs:
        if dev.step == 0:
            counters["dev_before"] = dev.dev
        if dev.best:
            counters |= {"best_dev": dev.dev, "best_step": float(dev.step)}
    return counters
