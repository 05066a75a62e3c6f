"""The mask scorer: an actor beside each worker that holds P and embeds the next batch while this one trains.

It takes no share of a CPU or GPU from Ray: a worker's placement group has none to give, and asking would wait
for ever. On a GPU it computes on its worker's own, named by its number; its memory is the user's to plan.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from multicsr.config import MaskConfig
from multicsr.errors import MulticsrError, RunError
from multicsr.train.mask_model import MaskModel, Vectors

if TYPE_CHECKING:
    from ray import ObjectRef

_RETRIES = 5
"""Of a batch whose scorer died: one that kills it every time is an error, not a pause without end."""


class ActorEmbedder:
    """An `Embedder` whose P lives in an actor of its own."""

    def __init__(self, config: MaskConfig, threads: int) -> None:
        """Start the actor on this node and wait until P is loaded.

        Raises:
            ConfigError: P cannot be loaded.
        """
        self._actor = _start(config, threads)
        self.width: int = int(_taken(self._actor.width.remote()))

    def ask(self, texts: Sequence[str]) -> "ActorAnswer":
        return ActorAnswer(self._actor.embed.remote(list(texts)))


class ActorAnswer:
    """Vectors that the actor computes."""

    def __init__(self, reference: "ObjectRef[Vectors]") -> None:
        self._reference = reference

    def take(self) -> Vectors:
        vectors: Vectors = np.asarray(_taken(self._reference))
        return vectors


class _Scorer:
    """Lives in the actor. P is loaded at the first call, so that an expected error can travel as a value."""

    def __init__(self, config: MaskConfig, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._config, self._device = config, device
        self._model: MaskModel | None = None

    def width(self) -> int | MulticsrError:
        try:
            self._model = MaskModel(self._config, self._device)
        except MulticsrError as error:
            return error
        return self._model.width

    def embed(self, texts: list[str]) -> Vectors | MulticsrError:
        try:
            # A restarted actor was not asked for its width.
            self._model = self._model or MaskModel(self._config, self._device)
            return self._model.embed(texts)
        except MulticsrError as error:
            return error


def _start(config: MaskConfig, threads: int) -> Any:  # noqa: ANN401 - Ray's actor handles have no type
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
    return scorer.remote(config, "cuda" if gpu else "cpu", threads)


def _taken(reference: "ObjectRef[Any]") -> int | Vectors:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        result = ray.get(reference)
    except RayTaskError as error:
        reason = str(error.cause).partition("\n")[0]
        raise RunError(f"train.mask: {reason}") from error
    except RayError as error:
        cause = str(error).strip().splitlines()[0]
        raise RunError(f"train.mask: the scorer died {_RETRIES + 1} times on one batch: {cause}") from error
    if isinstance(result, MulticsrError):
        raise result
    return cast("int | Vectors", result)
