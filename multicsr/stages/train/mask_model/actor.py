"""The mask scorer: one actor for each worker, which holds P and embeds the next batch while this one trains.

The actor requests no CPU or GPU from Ray: the placement group of the worker has none left, so a request would
wait without end. On a GPU node it computes on its worker's GPU, which is selected by its number; users must
leave memory for it.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from multicsr.config import MaskConfig
from multicsr.errors import RunError
from multicsr.execution.outcome import Outcome
from multicsr.execution.profiling import loading, working
from multicsr.execution.working_directory import enter_directory
from multicsr.messages.foreign_errors import explain_error
from multicsr.models.frozen_encoder import Vectors
from multicsr.stages.train.mask_model.model import MaskModel

if TYPE_CHECKING:
    from ray import ObjectRef

_ROLE = "mask model"
"""Role of the process in profiles."""
_RETRIES = 5
"""Number of retries of a batch whose scorer died. A batch that kills the scorer every time must end in an
error, not in an endless wait."""


class ActorEmbedder:
    """An `Embedder` whose P is in an actor of its own."""

    def __init__(self, config: MaskConfig, threads: int) -> None:
        """Start the actor on this node and wait until P is loaded.

        Args:
            config: the settings of the mask.
            threads: number of CPU threads that P computes with.

        Raises:
            ConfigError: P cannot be loaded.
        """
        self._actor = _start(config, threads)
        self.width: int = _outcome(self._actor.width.remote()).take()

    def ask(self, texts: Sequence[str]) -> "ActorAnswer":
        """Implement `Embedder.ask`: return at once, while the actor computes."""
        return ActorAnswer(self._actor.embed.remote(list(texts)))


class ActorAnswer:
    """A `PendingVectors` that the actor computes."""

    def __init__(self, reference: "ObjectRef[Outcome[Vectors]]") -> None:
        """Set up the answer; `reference` is the result of the actor."""
        self._reference = reference

    def take(self) -> Vectors:
        """Implement `PendingVectors.take`."""
        vectors: Vectors = _outcome(self._reference).take()
        return vectors


class _Scorer:
    """The actor's class. P is loaded at the first call, so that an expected error is in an `Outcome`, too."""

    def __init__(self, config: MaskConfig, device: str, threads: int, directory: str) -> None:
        """Set the working directory and the number of threads; P is not loaded yet."""
        enter_directory(directory)
        torch.set_num_threads(threads)
        self._config, self._device = config, device
        self._model: MaskModel | None = None

    def width(self) -> Outcome[int]:
        """Return the width D of P's vectors."""
        return Outcome.of(lambda: self._loaded().width)

    def embed(self, texts: list[str]) -> Outcome[Vectors]:
        """Return the vectors [len(texts), D]."""
        return Outcome.of(lambda: self._embedded(texts))

    def _embedded(self, texts: list[str]) -> Vectors:
        model = self._loaded()
        with working(_ROLE):
            return model.embed(texts)

    def _loaded(self) -> MaskModel:
        """Load P at the first call, which in a restarted actor may be any, and return it."""
        if self._model is None:
            with loading(_ROLE):
                self._model = MaskModel(self._config, self._device)
        return self._model


def _start(config: MaskConfig, threads: int) -> Any:  # noqa: ANN401 - Ray's actor handles have no type
    """Start the actor on this node, on this worker's GPU if it has one, and return its handle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    gpu = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    environment = {"OMP_NUM_THREADS": str(threads)}
    if gpu:
        environment["CUDA_VISIBLE_DEVICES"] = gpu[0]
    scorer = ray.remote(_Scorer).options(
        num_cpus=0,
        num_gpus=0,
        max_restarts=-1,
        max_task_retries=_RETRIES,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        runtime_env={"env_vars": environment},
    )
    return scorer.remote(config, "cuda" if gpu else "cpu", threads, os.getcwd())


def _outcome(reference: "ObjectRef[Outcome[Any]]") -> Outcome[Any]:
    """Wait for an outcome of the actor and return it.

    Raises:
        RunError: the call failed, or the actor died at every retry.
    """
    import ray
    from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError

    try:
        return cast("Outcome[Any]", ray.get(reference))
    except RayTaskError as error:
        raise RunError(f"train.mask: {explain_error(error)}") from error
    except (ActorDiedError, ActorUnavailableError) as error:
        died = f"the scorer died {_RETRIES + 1} times on one batch"
        raise RunError(f"train.mask: {died}: {explain_error(error)}") from error
    except RayError as error:
        raise RunError(f"train.mask: {explain_error(error)}") from error
