"""Whole jobs in this process, without Ray: stages, training and evaluation of a small store, many times."""

import os
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from multicsr.config import Config
from multicsr.execution import pool
from multicsr.pipeline import full_run
from tests.support.tiny_encoder import LETTERS, save_tiny_bert


class _NoAttempts:
    """Counts nothing: no process ends here."""

    def begin(self, number: int, name: str) -> None:
        pass

    def end(self, number: int) -> None:
        pass


class _Results:
    """The results of a stage's workers; what they are given, give back and raise travels as in Ray."""

    def __init__(self, make: Callable[[], Any], items: Sequence[object], pool: object, attempts: object):
        self._make, self._items = make, items

    def iter_rows(self) -> Iterator[dict[str, bytes]]:
        from ray.exceptions import RayTaskError

        worker = pool._Worker(self._make, _NoAttempts(), "task", ".")
        for number, item in enumerate(self._items):
            try:
                (result,) = worker({"number": [number], "shard": [pickle.dumps(item)]})["result"]
            except Exception as error:  # noqa: BLE001 - the boundary of a worker
                raise RayTaskError("map", traceback.format_exc(), error).as_instanceof_cause() from None
            yield {"result": result}


class _Trainer:
    """Ray Train's trainer with one worker, which is started again after an exception."""

    def __init__(
        self, work: Callable[[Any], object], *, train_loop_config: Any, run_config: Any, **_: object
    ):
        self._work, self._task = work, train_loop_config
        self._tries_left = run_config.failure_config.max_failures

    def fit(self) -> SimpleNamespace:
        from ray import cloudpickle
        from ray.train.v2.api.exceptions import WorkerGroupError

        task = cloudpickle.loads(cloudpickle.dumps(self._task))
        while True:
            try:
                return SimpleNamespace(return_value=pickle.loads(pickle.dumps(self._work(task))))
            except Exception as error:  # noqa: BLE001 - the boundary of a worker
                if not self._tries_left:
                    raise WorkerGroupError(traceback.format_exc(), {0: error}) from None
                self._tries_left -= 1


class _Evaluator:
    """An evaluation on dev without an actor."""

    def __init__(self, make: Callable[[], Any], folder: str):
        self._make, self._value = make, 0.0

    def start(self, weights: Any) -> None:
        self._value = self._make().measure(weights)

    def is_ready(self) -> bool:
        return True

    def result(self) -> float:
        return self._value


def _rows_in_order(paths: Sequence[str], read: Any, name_rows: Any, order_P: Any) -> pa.Table:
    """Do what `row_stream.rows_in_order` does."""
    rows = pa.concat_tables(map(read, paths), promote_options="default")
    names = name_rows(rows)
    by_name = np.argsort(names)
    return rows.take(by_name[np.searchsorted(names[by_name], order_P)])


@contextmanager
def jobs_here() -> Iterator[None]:
    """Let jobs work in this process: a stage costs milliseconds instead of seconds."""
    import ray.train.torch
    import torch

    from multicsr.pipeline import refresh
    from multicsr.stages.train import trainer
    from multicsr.stages.train.data import source
    from multicsr.stages.train.monitoring import dev_evaluation

    folder = os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "_results", _Results)
        for module in (pool, trainer):
            patch.setattr(module, "start_ray", lambda cpus=0: nullcontext())
        for module in (full_run, refresh):
            patch.setattr(module, "lazy_ray_session", lambda *_: nullcontext())
        patch.setattr(trainer, "check_resources", lambda config: None)
        patch.setattr(ray.train.torch, "TorchTrainer", _Trainer)
        patch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
        patch.setattr(source, "rows_in_order", _rows_in_order)
        patch.setattr(dev_evaluation, "ActorEvaluator", _Evaluator)
        yield
    os.chdir(folder)


def write_inputs(folder: Path) -> None:
    """Write a tiny encoder, two files of sentences and a file of triplets."""
    (folder / "encoder").mkdir()
    save_tiny_bert(folder / "encoder", LETTERS)
    for name, numbers in (("a.txt", range(60)), ("b.txt", range(60, 90))):
        lines = [f"This is sentence number {number} out of many." for number in numbers]
        (folder / name).write_text("\n".join([*lines, "Too short."]) + "\n")
    rows = [f"Number {n} is here.\tHere is number {n}.\tNobody saw number {n}." for n in range(16)]
    (folder / "triplets.tsv").write_text("\n".join(["anchor\tpositive\tnegative", *rows]) + "\n")


def tiny_config(inputs: Path, store: Path, *files: str, **train: object) -> Config:
    """Return the configuration of a run on the inputs, down to an encoder trained for one step."""
    encoder = str(inputs / "encoder")
    mask = {"model": encoder, "place": "worker", "sigma": 0.9999}
    training = {"encoder": encoder, "pooling": "mean", "mlp_head": False, "mask": mask}
    training |= {"steps": 1, "global_batch": 8, "max_length": 24, "tensorboard": False}
    return Config.model_validate(
        {
            "name": "tiny",
            "store": str(store),
            "lease_s": 1,
            "input": {"paths": [str(inputs / file) for file in files]},
            "ingest": {"rows_per_file": 30},
            "llm": {"engine": "fake"},
            "generate": {"rows_per_shard": 20},
            "score": {"method": "both"},
            "train": training | train,
            "evaluate": {"data": [str(inputs / "triplets.tsv")], "baseline": False},
        }
    )
