"""What runs in every worker of Ray Train."""

import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa

from multicsr.config import Config, MaskConfig
from multicsr.errors import MulticsrError
from multicsr.manifest import read_manifest
from multicsr.progress import SilentProgress
from multicsr.store import Store

if TYPE_CHECKING:
    from multicsr.train.mask_model import Embedder

INDEX = "index"
ERROR = "error.pkl"
"""What ended a worker while others went on: the next set of workers reports it instead of trying again."""


class Task(TypedDict):
    """What every worker is told."""

    config: Config
    store: Store
    key: str
    """Fingerprint of the model to be."""
    folder: Path
    """Where the command was given: paths in the configuration are relative to it."""


def work(task: Task) -> int | MulticsrError:
    """Train; returns the number of rows that were left out.

    An expected error travels back as a value: Ray would start the workers again on an exception. With several
    workers the others may be waiting for this one, so it must end with an exception to end them too; what
    happened is left in a file for the workers that Ray starts next.
    """
    from multicsr.train import world

    error_file = task["store"].local(f"training/{task['key']}") / ERROR
    if error_file.exists():
        error: MulticsrError = pickle.loads(error_file.read_bytes())
        return error
    try:
        return _train(task)
    except MulticsrError as error:
        if world.size() == 1:
            return error
        error_file.write_bytes(pickle.dumps(error))
        raise


def _train(task: Task) -> int:
    import ray.train.torch
    import torch

    from multicsr.train.dev import ActorEvaluator
    from multicsr.train.index import join_index
    from multicsr.train.loop import Job, run_job
    from multicsr.train.source import from_files

    config, store = task["config"], task["store"]
    train, mask = config.train, config.train.mask
    os.chdir(task["folder"])
    threads = max(1, int(train.cpus_per_worker))
    torch.set_num_threads(threads)
    curated = read_manifest(store, "curated")
    index = join_index([*_index_parts(store, f"training/{task['key']}/{INDEX}/rows")])
    device = str(ray.train.torch.get_device())
    job = Job(
        config=train,
        seed=config.seed,
        index=index,
        source=from_files(store, curated, index, train.objective),
        out=store.local(f"training/{task['key']}"),
        device=device,
        embedder=None if mask is None else lambda: _embedder(mask, device, threads),
        evaluator=None if train.dev is None else lambda: ActorEvaluator(train, str(task["folder"])),
        vectors=store,
        events=store.local(f"tensorboard/{task['key']}"),
        name=config.name,
    )
    return run_job(job, SilentProgress()).num_left_out


def _embedder(mask: MaskConfig, device: str, threads: int) -> "Embedder":
    """P, where the configuration wants it."""
    from multicsr.train.mask_model import InsideEmbedder, MaskModel
    from multicsr.train.scorer import ActorEmbedder

    if mask.place == "worker":
        return InsideEmbedder(MaskModel(mask, device))
    return ActorEmbedder(mask, threads)


def _index_parts(store: Store, folder: str) -> Iterator[pa.Table]:
    with ThreadPoolExecutor(max_workers=8) as threads:
        yield from threads.map(store.read_table, store.list(folder))
