"""What runs in every worker of Ray Train."""

import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa

from multicsr.config import Config, MaskConfig, TrainConfig
from multicsr.errors import MulticsrError
from multicsr.progress import SilentProgress
from multicsr.store import FileEntry, Store
from multicsr.train.log import ENCODER, HISTOGRAM, LOG, MASKED_PAIRS
from multicsr.versions import Rooms

if TYPE_CHECKING:
    from multicsr.train.dev import Dev
    from multicsr.train.mask_model import Embedder

INDEX = "index"
ERROR = "error.pkl"
"""What ended a worker while others went on: the next set of workers reports it instead of trying again."""


class Task(TypedDict):
    """What every worker is told."""

    config: Config
    store: Store
    rooms: Rooms
    key: str
    """Fingerprint of the model to be."""
    start: str | None
    """Fingerprint of the model to train further; None: `train.encoder` is."""
    folder: Path
    """Where the command was given: paths in the configuration are relative to it."""


@dataclass(frozen=True)
class Trained:
    """What worker 0 tells when the model is in the store."""

    files: list[FileEntry]
    num_left_out: int
    num_workers: int
    """Of those who came to the end."""


def work(task: Task) -> Trained | MulticsrError:
    """Train; worker 0 puts the model and what the report shows into the folder `model/<key>` of the store.

    An expected error travels back as a value: Ray would start the workers again on an exception. With several
    workers the others may be waiting for this one, so it must end with an exception to end them too; what
    happened is left in a file for the workers that Ray starts next.
    """
    from multicsr.train import world

    store, error_name = task["store"], f"training/{task['key']}/{ERROR}"
    if store.exists(error_name):
        error: MulticsrError = pickle.loads(store.read_bytes(error_name))
        return error
    try:
        return _train(task)
    except MulticsrError as error:
        if world.size() == 1:
            return error
        store.write_bytes(error_name, pickle.dumps(error))
        raise


def _train(task: Task) -> Trained:
    import ray.train.torch
    import torch

    from multicsr.train import world
    from multicsr.train.dev import ActorEvaluator
    from multicsr.train.index import join_index
    from multicsr.train.loop import CHECKPOINT, Job, run_job
    from multicsr.train.source import from_files
    from multicsr.train.workspace import Workspace

    config, store = task["config"], task["store"]
    os.chdir(task["folder"])
    threads = max(1, int(config.train.cpus_per_worker))
    torch.set_num_threads(threads)
    workspace = Workspace(store, task["key"], world.rank())
    workspace.fetch(LOG, CHECKPOINT)
    start = f"model/{task['start']}/{ENCODER}" if task["start"] else None
    train = config.train.model_copy(update={"encoder": start}) if start else config.train
    mask = train.mask
    curated = task["rooms"].manifest("curated")
    index = join_index([*_index_parts(store, f"training/{task['key']}/{INDEX}/rows")])
    device = str(ray.train.torch.get_device())
    make_dev = partial(_make_dev, train, store, start)
    job = Job(
        config=train,
        seed=config.seed,
        index=index,
        source=from_files(store, curated, index, train.objective),
        out=workspace.path,
        device=device,
        embedder=None if mask is None else lambda: _embedder(mask, device, threads),
        encoder=workspace.directory(start) if start else None,
        evaluator=None if train.dev is None else lambda: ActorEvaluator(make_dev, str(task["folder"])),
        vectors=store,
        events=workspace.events,
        name=config.name,
        keep=workspace.keep,
        kept_at=workspace.uri,
    )
    with workspace.mirrored(LOG):
        result = run_job(job, SilentProgress())
    files = [] if world.rank() else [*_upload(store, f"model/{task['key']}", workspace.path)]
    workspace.clear()
    return Trained(files, result.num_left_out, world.size())


def _upload(store: Store, folder: str, out: Path) -> Iterator[FileEntry]:
    yield from store.upload(f"{folder}/{ENCODER}", out / "model")
    for name in (LOG, MASKED_PAIRS, HISTOGRAM):
        if (out / name).exists():
            yield store.upload_file(f"{folder}/{name}", out / name)


def _make_dev(train: TrainConfig, store: Store, start: str | None) -> "Dev":
    """What measures, on whatever machine: an encoder in the store is brought there."""
    from multicsr.train.dev import Dev

    with store.as_directory(start) if start else nullcontext() as encoder:
        return Dev(train, encoder)


def _embedder(mask: MaskConfig, device: str, threads: int) -> "Embedder":
    """P, where the configuration wants it."""
    from multicsr.train.mask_model import InsideEmbedder, MaskModel
    from multicsr.train.scorer import ActorEmbedder

    if mask.place == "worker":
        return InsideEmbedder(MaskModel(mask, device))
    return ActorEmbedder(mask, threads)


def _index_parts(store: Store, folder: str) -> Iterator[pa.Table]:
    with ThreadPoolExecutor(max_workers=8) as threads:
        yield from threads.map(store.read_table, store.names(folder))
