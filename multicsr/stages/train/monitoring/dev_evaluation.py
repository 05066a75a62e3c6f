"""Evaluation on dev in parallel with the training: no step waits for it.

A score is reported when it is ready, and at the latest before the next evaluation begins, so that the choice
of the best checkpoint and early stopping do not depend on timing.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from multicsr.config import TrainConfig
from multicsr.errors import RunError
from multicsr.execution.profiling import loading, working
from multicsr.execution.working_directory import enter_directory
from multicsr.messages.foreign_errors import explain_error
from multicsr.models.encoder import load_for_training
from multicsr.models.published_encoder import with_prompt
from multicsr.stages.evaluate import Measurement, Task, encoding, read_task, similarity_of
from multicsr.stages.train.engines.base import Tensors

if TYPE_CHECKING:
    from ray import ObjectRef
    from sentence_transformers import SentenceTransformer

_ROLE = "dev evaluation"
"""Role of the process in profiles."""


class Evaluator(Protocol):
    """An evaluation of parameters on dev, one set of parameters at a time."""

    def start(self, weights: Tensors) -> None:
        """Start to measure the encoder with these parameters, without waiting for the score if possible."""

    def is_ready(self) -> bool:
        """Return True if `result` would return at once."""

    def result(self) -> float:
        """Wait for the evaluation that was started, and return its score.

        Returns:
            100 x Spearman correlation, or the percentage of triplets that are ordered correctly.

        Raises:
            RunError: the encoder gives vectors that are not finite, or the evaluation died at every retry.
        """


class Dev:
    """The dev task and an encoder to measure with, which is not the encoder in training but a copy."""

    def __init__(self, config: TrainConfig, task: Task, encoder: Path | None = None) -> None:
        """Load the encoder.

        Args:
            config: the settings of the training.
            task: the task on which parameters are measured.
            encoder: see `TrainingJob`.

        Raises:
            ConfigError: the encoder cannot be used.
        """
        self._task = task
        model = load_for_training(config, name=str(encoder or config.encoder))
        self._model: SentenceTransformer = with_prompt(model, config.prompt)

    def measure(self, weights: Tensors) -> float:
        """Return 100 x Spearman correlation, or the percentage of triplets that are ordered correctly."""
        return self.examine(weights).score.value

    def examine(self, weights: Tensors) -> Measurement:
        """Return the score of these parameters with its examples."""
        self._model.load_state_dict(weights)
        return self._task.measure(encoding(self._model), similarity_of(self._model))[0]

    def measure_also(self, task: Task) -> float:
        """Return the score of the parameters that were measured last, on another task."""
        return task.measure(encoding(self._model), similarity_of(self._model))[0].score.value

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors [N, D] of N texts, by the parameters that were measured last."""
        return encoding(self._model)([*texts])


class InsideEvaluator:
    """An `Evaluator` in the worker itself; the training waits for it."""

    def __init__(self, config: TrainConfig) -> None:
        """Load the dev file and the encoder; for the exceptions see `Dev`."""
        self._dev = Dev(config, read_task(str(config.dev)))
        self._result = 0.0

    def start(self, weights: Tensors) -> None:
        """Implement `Evaluator.start`: measure at once."""
        self._result = self._dev.measure(weights)

    def is_ready(self) -> bool:
        """Implement `Evaluator.is_ready`."""
        return True

    def result(self) -> float:
        """Implement `Evaluator.result`."""
        return self._result


class ActorEvaluator:
    """An `Evaluator` in a Ray actor on any node. It reserves no CPU; see `mask_model/actor.py`."""

    def __init__(self, make: Callable[[], Dev], folder: str) -> None:
        """Start the actor.

        Args:
            make: returns the evaluation; it is called in the actor.
            folder: working directory of the command. `train.dev` is relative to it.
        """
        import ray

        actor = ray.remote(_DevActor).options(num_cpus=0, num_gpus=0, max_restarts=-1, max_task_retries=3)
        self._actor: Any = actor.remote(make, folder)
        self._pending: ObjectRef[float] | None = None

    def start(self, weights: Tensors) -> None:
        """Implement `Evaluator.start`: return at once."""
        self._pending = self._actor.measure.remote(weights)

    def is_ready(self) -> bool:
        """Implement `Evaluator.is_ready`."""
        import ray

        ready, _ = ray.wait([self._pending], timeout=0)
        return bool(ready)

    def result(self) -> float:
        """Implement `Evaluator.result`."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            return float(ray.get(self._pending))
        except RayTaskError as error:
            raise RunError(f"train.dev: {explain_error(error)}") from error
        except RayError as error:
            raise RunError(f"train.dev: the evaluation died: {explain_error(error)}") from error


class _DevActor:
    """The actor's class. It loads at the first call, because Ray hides the cause of a constructor's error."""

    def __init__(self, make: Callable[[], Dev], folder: str) -> None:
        """Set the working directory and compute on one thread; nothing is loaded yet."""
        enter_directory(folder)
        torch.set_num_threads(1)
        self._make = make
        self._dev: Dev | None = None

    def measure(self, weights: Tensors) -> float:
        """Return the score of these parameters; see `Dev.measure`."""
        if self._dev is None:
            with loading(_ROLE):
                self._dev = self._make()
        with working(_ROLE):
            return self._dev.measure(weights)
