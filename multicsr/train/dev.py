"""Evaluation on dev beside the training: the step does not wait for it.

What was found is told when it is there, and at the latest before the next evaluation begins, so that the
choice of the best checkpoint and an early stop are functions of the run alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from multicsr.config import TrainConfig
from multicsr.errors import RunError
from multicsr.evaluate import measure, read_task
from multicsr.train.encoder import load_encoder
from multicsr.train.engine import Tensors

if TYPE_CHECKING:
    from ray import ObjectRef
    from sentence_transformers import SentenceTransformer


class Evaluator(Protocol):
    """Measures parameters on dev, one set at a time."""

    def start(self, weights: Tensors) -> None:
        """Begin to measure the encoder with these parameters."""

    def is_ready(self) -> bool:
        """Whether `result` would answer at once."""

    def result(self) -> float:
        """The score of what was started, waiting for it if need be.

        Raises:
            RunError: the encoder gives vectors that are not finite, or the evaluation died again and again.
        """


class Dev:
    """The encoder to measure with, and the task; another copy than the one in training."""

    def __init__(self, config: TrainConfig, encoder: Path | None = None) -> None:
        """`encoder`: as in `loop.Job`. Raises ConfigError: the dev file or the encoder cannot be used."""
        self._task = read_task(str(config.dev))
        self._model: SentenceTransformer = load_encoder(
            str(encoder or config.encoder),
            pooling=config.pooling,
            layers=config.layers,
            max_length=config.max_length,
            lora=config.lora,
        ).eval()

    def measure(self, weights: Tensors) -> float:
        """100 x Spearman, or % of triplets ordered rightly."""
        self._model.load_state_dict(weights)
        encode = self._model.encode
        return measure(self._task, lambda texts: encode(texts, show_progress_bar=False)).value


class InsideEvaluator:
    """Measures in the worker itself; the training waits."""

    def __init__(self, config: TrainConfig) -> None:
        self._dev = Dev(config)
        self._result = 0.0

    def start(self, weights: Tensors) -> None:
        self._result = self._dev.measure(weights)

    def is_ready(self) -> bool:
        return True

    def result(self) -> float:
        return self._result


class ActorEvaluator:
    """Measures in a Ray actor on a CPU, wherever there is one; it reserves none, see `scorer.py`."""

    def __init__(self, make: Callable[[], Dev], folder: str) -> None:
        """`folder`: where the command was given; `train.dev` is relative to it."""
        import ray

        actor = ray.remote(_DevActor).options(num_cpus=0, num_gpus=0, max_restarts=-1, max_task_retries=3)
        self._actor: Any = actor.remote(make, folder)
        self._pending: ObjectRef[float] | None = None

    def start(self, weights: Tensors) -> None:
        self._pending = self._actor.measure.remote(weights)

    def is_ready(self) -> bool:
        import ray

        ready, _ = ray.wait([self._pending], timeout=0)
        return bool(ready)

    def result(self) -> float:
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            return float(ray.get(self._pending))
        except RayTaskError as error:
            reason = str(error.cause).partition("\n")[0]
            raise RunError(f"train.dev: {reason}") from error
        except RayError as error:
            raise RunError(f"train.dev: the evaluation died: {str(error).splitlines()[0]}") from error


class _DevActor:
    """Reads what it needs at the first call: of an error in the constructor Ray would not tell the cause."""

    def __init__(self, make: Callable[[], Dev], folder: str) -> None:
        import os

        os.chdir(folder)
        torch.set_num_threads(1)
        self._make = make
        self._dev: Dev | None = None

    def measure(self, weights: Tensors) -> float:
        self._dev = self._dev or self._make()
        return self._dev.measure(weights)
