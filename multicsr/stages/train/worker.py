"""The function that runs in every worker of Ray Train."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa

from multicsr.artifacts import ENCODER, HISTOGRAM, LOG, MASKED_PAIRS, MERGES, Merges
from multicsr.config import Config, MaskConfig, TrainConfig
from multicsr.errors import MulticsrError
from multicsr.execution.outcome import Outcome
from multicsr.execution.stage_runner import finished
from multicsr.execution.working_directory import enter_directory
from multicsr.extensions import PinnedPart
from multicsr.observability.progress import Progress, SilentProgress
from multicsr.stages.train.failures import Failures
from multicsr.storage.manifest import Manifest, read_manifest
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.versions import Snapshot

if TYPE_CHECKING:
    from multicsr.stages.evaluate import Task as EvaluationTask
    from multicsr.stages.train.mask_model.model import Embedder
    from multicsr.stages.train.monitoring.dev_evaluation import Dev

INDEX, LABELLED_INDEX = "index", "index-labelled"
"""Folders of the parts of the index of curated and of labelled rows, in the folder of the training."""


class TrainingTask(TypedDict):
    """The arguments of `work`, the same for every worker."""

    config: Config
    store: Store
    snapshot: Snapshot
    key: str
    """Fingerprint of the model that the training makes."""
    start: str | None
    """Fingerprint of the model that is trained further; None: `train.encoder` is trained."""
    packages: list[PinnedPart]
    """The objective if it is one of a package, as the driver has it."""
    labelled: list[FileEntry]
    """Files of the labelled triplets of `train.extra_triplets`."""
    folder: Path
    """Working directory of the command. Paths in the configuration are relative to it."""


@dataclass(frozen=True)
class TrainedModel:
    """The result of a worker, returned when the model is in the store."""

    files: list[FileEntry]
    """Files of the artifact, from worker 0; empty on other workers."""
    num_left_out: int
    """Number of rows left out because they contain the same sentence twice."""
    withheld: Mapping[str, int]
    """Number of rows that are kept from training, by reason."""
    num_workers: int
    """Number of workers that finished the training."""
    merges: Merges | None
    """Candidates from which dev chose, from worker 0; None: the trained parameters are kept."""


class _StepCounter(SilentProgress):
    """Counter of the optimizer steps that are done."""

    def __init__(self) -> None:
        """Start at 0."""
        self.steps = 0

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Add `amount` steps."""
        self.steps += amount

    def skip(self, amount: int) -> None:
        """Add steps that an earlier worker did."""
        self.steps += amount


def work(task: TrainingTask) -> Outcome[TrainedModel]:
    """Train; worker 0 uploads the model and the data for the report to the folder `model/<key>` of the store.

    An error that ends the run is returned as an outcome, because Ray would restart the workers after an
    exception. With several workers, however, the others may be waiting for this one. Then it must raise an
    exception, which ends them too, and it records the error in the store for the workers that Ray starts
    next.

    Returns:
        The result, or the error that ends the run.
    """
    import torch.distributed as dist

    from multicsr.stages.train import distributed

    failures, done = Failures(task["store"], task["key"]), _StepCounter()
    if (final := failures.final()) is not None:
        return Outcome(final)
    try:
        return Outcome(_train(task, done))
    except dist.DistError:
        raise  # Another worker was lost; Ray restarts the workers.
    except Exception as error:
        final = (
            error
            if isinstance(error, MulticsrError)
            else failures.note(error, distributed.rank(), done.steps)
        )
        if final is not None and distributed.size() == 1:
            return Outcome(final)
        if final is not None:
            failures.end_run(final)
        raise


def _train(task: TrainingTask, progress: Progress) -> TrainedModel:
    """Run the job in the workspace of this worker and upload the model on worker 0."""
    import ray.train.torch
    import torch

    from multicsr.stages.train import distributed
    from multicsr.stages.train.checkpoint_folder import PATTERN
    from multicsr.stages.train.data.index import join_index
    from multicsr.stages.train.data.source import from_files
    from multicsr.stages.train.job import TrainingJob
    from multicsr.stages.train.loop import run_training
    from multicsr.stages.train.monitoring.dev_evaluation import ActorEvaluator
    from multicsr.stages.train.services import TrainingServices
    from multicsr.stages.train.workspace import Workspace

    config, store = task["config"], task["store"]
    for part in task["packages"]:
        part.require_same()
    enter_directory(str(task["folder"]))
    threads = max(1, int(config.train.cpus_per_worker))
    torch.set_num_threads(threads)
    workspace = Workspace(store, task["key"], distributed.rank())
    workspace.fetch(LOG, PATTERN)
    start = f"model/{task['start']}/{ENCODER}" if task["start"] else None
    train = config.train.model_copy(update={"encoder": start}) if start else config.train
    mask = train.mask
    rows = task["snapshot"].manifest(config.train.rows)
    folders = (f"training/{task['key']}/{name}" for name in (INDEX, LABELLED_INDEX))
    index = join_index([part for folder in folders for part in _index_parts(store, folder)])
    device = str(ray.train.torch.get_device())
    make_dev = partial(_make_dev, train, store, start)
    with workspace.mirrored(LOG), _start_from(store, start) as encoder:
        job = TrainingJob(
            config=train,
            seed=config.seed,
            run=task["key"],
            index=index,
            device=device,
            name=config.name,
            out=workspace.path,
            events=workspace.events,
            kept_at=workspace.uri,
            encoder=encoder,
        )
        services = TrainingServices(
            source=from_files(store, [*rows.files, *task["labelled"]], index, train.objective),
            embedder=None if mask is None else lambda: _embedder(mask, device, threads),
            evaluator=None if train.dev is None else lambda: ActorEvaluator(make_dev, str(task["folder"])),
            chooser=lambda: _chooser(config, store, rows),
            vectors=store,
            keep=workspace.keep,
        )
        result = run_training(job, services, progress)
    files = [] if distributed.rank() else [*_upload(store, f"model/{task['key']}", workspace.path)]
    workspace.clear()
    return TrainedModel(files, result.num_left_out, index.withheld, distributed.size(), result.merges)


def _upload(store: Store, folder: str, out: Path) -> Iterator[FileEntry]:
    """Upload the model, the log and the mask statistics, and yield the entry of each file."""
    yield from store.upload(f"{folder}/{ENCODER}", out / "model")
    for name in (LOG, MASKED_PAIRS, HISTOGRAM, MERGES):
        if (out / name).exists():
            yield store.upload_file(f"{folder}/{name}", out / name)


def _make_dev(train: TrainConfig, store: Store, start: str | None) -> "Dev":
    """Return the dev evaluation, on any machine: an encoder from the store is copied to it for loading."""
    from multicsr.stages.evaluate import read_task
    from multicsr.stages.train.monitoring.dev_evaluation import Dev

    with _start_from(store, start) as encoder:
        return Dev(train, read_task(str(train.dev)), encoder)


def _chooser(config: Config, store: Store, curated: Manifest) -> "EvaluationTask":
    """Return the task that chooses among merges: dev, or the first part of the held-out triplets."""
    from multicsr.stages.evaluate import read_task
    from multicsr.stages.evaluate.held_out import CHOOSING_PART, read_held_out

    if config.train.dev is not None:
        return read_task(config.train.dev)
    return read_held_out(store, curated, CHOOSING_PART * config.evaluate.held_out).tasks()[0]


@contextmanager
def _start_from(store: Store, start: str | None) -> Iterator[Path | None]:
    """Yield a local directory of the encoder that is trained further.

    Args:
        store: the store.
        start: the encoder's folder in the store, `model/<fingerprint>/encoder`. If it is None, the encoder
            does not come from the store, and None is yielded.
    """
    if start is None:
        yield None
        return
    artifact, key, _ = start.split("/")
    with store.as_directory(start, read_manifest(store, artifact, key).files) as encoder:
        yield encoder


def _embedder(mask: MaskConfig, device: str, threads: int) -> "Embedder":
    """Start P in the place that the configuration names, in this worker or in an actor."""
    from multicsr.stages.train.mask_model.actor import ActorEmbedder
    from multicsr.stages.train.mask_model.model import InsideEmbedder, MaskModel

    if mask.place == "worker":
        return InsideEmbedder(MaskModel(mask, device))
    return ActorEmbedder(mask, threads)


def _index_parts(store: Store, folder: str) -> Iterator[pa.Table]:
    """Yield the parts of the index, in the order of their keys."""
    entries = [entry for report in finished(store, folder) for entry in report.files]
    with ThreadPoolExecutor(max_workers=8) as threads:
        yield from threads.map(store.read_table, entries)
