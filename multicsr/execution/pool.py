"""Pools of workers: Ray Data calls a function on many items, in tasks or in actors.

Items are few and small, such as names of shards: they and the results pass through the driver.
"""

import logging
import math
import os
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from multicsr.errors import RunError, WorkerLost
from multicsr.execution.attempts import Attempts
from multicsr.execution.outcome import Outcome
from multicsr.execution.profiling import loading, working
from multicsr.execution.ray_session import start_ray
from multicsr.execution.working_directory import current_directory, enter_directory
from multicsr.messages.foreign_errors import explain_error
from multicsr.observability.metrics import publish

if TYPE_CHECKING:
    from ray.data import Dataset

_log = logging.getLogger(__name__)
_WITHOUT_END = -1
"""Ray's value for unlimited retries of a shard whose worker died; `Attempts` stops useless ones."""
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")


@dataclass(frozen=True)
class Pool:
    """The workers of a stage and their resources."""

    actors: int | None = None
    """Size of the actor pool; None: tasks instead of actors, for cheap work without a model."""
    cpus: float = 1
    gpus: float = 0
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Ray labels that a node must have to run workers; empty: any node."""
    shards_at_once: int = 1
    """Number of shards in one actor, each in its own thread. More than one keeps a model busy while another
    shard finishes its last rows."""
    shards_per_task: int = 1
    """Number of shards in one task; greater than 1 if the work on a shard is short compared with Ray's
    overhead of about 10 ms."""


class _Worker:
    """The code of a worker; it exists as long as its actor, or for one call in a task.

    An expected error is returned in an `Outcome`. So that this holds for errors of `make`, too, the function
    of the stage is made in the first call, not in the constructor.
    """

    def __init__(
        self, make: Callable[[], Callable[[Any], object]], attempts: Attempts, role: str, directory: str
    ) -> None:
        self._make, self._attempts, self._role, self._directory = make, attempts, role, directory
        self._making = threading.Lock()
        self._work: Callable[[Any], object] | None = None

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[bytes]]:
        number, item = int(batch["number"][0]), pickle.loads(batch["shard"][0])
        outcome = Outcome.of(lambda: self._result_of(number, item))
        self._attempts.end(number)
        return {"result": [pickle.dumps(outcome)]}

    def _result_of(self, number: int, item: object) -> object:
        """Return the result for one item; end the process if it can do no more work."""
        try:
            self._attempts.begin(number, f"shard {getattr(item, 'key', number)}")
            with self._making:
                if self._work is None:
                    enter_directory(self._directory)
                    with loading(self._role):
                        self._work = self._make()
            with working(self._role):
                return self._work(item)
        except WorkerLost as error:
            _log.error("%s; this worker ends, another one takes over its shards", error)
            os._exit(1)


def map_items(name: str, make: Callable[[], Callable[[I], R]], items: Sequence[I], pool: Pool) -> Iterator[R]:
    """Yield the workers' result for each item, in the order in which they finish.

    Args:
        name: name of the stage, for messages.
        make: called once in each worker; returns the function for one item.
        items: must be few and small, because they and the results pass through the driver.

    Raises:
        MulticsrError: a worker raised it.
        RunError: Ray failed, or processes or nodes died too often on one item.
    """
    if not items:
        return
    from ray.exceptions import RayError

    with start_ray(pool.cpus * (pool.actors or 1)):
        results = _results(make, items, pool, Attempts(name))
        try:
            publish(name, {}, {"shards_waiting": len(items)})
            for done, row in enumerate(results.iter_rows(), 1):
                publish(name, {}, {"shards_waiting": len(items) - done})
                outcome: Outcome[R] = pickle.loads(row["result"])
                yield outcome.take()
        except RayError as error:
            raise RunError(f"{name}: {explain_error(error)}; the shards done so far are kept") from error
        finally:
            publish(name, {}, {"shards_waiting": 0})


def _results(
    make: Callable[[], Callable[[I], R]], items: Sequence[I], pool: Pool, attempts: Attempts
) -> "Dataset":
    """Return a dataset with a pickled `result` in each row; it is computed while it is read."""
    import ray.data
    from ray.util.annotations import RayDeprecationWarning

    directory = current_directory()
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not logging.getLogger().isEnabledFor(logging.INFO):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        # Ray 2.60 deprecates passing a limit of retries and offers no other way yet.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        blocks = math.ceil(len(items) / pool.shards_per_task)
        names = ray.data.from_items(
            [{"number": number, "shard": pickle.dumps(item)} for number, item in enumerate(items)],
            override_num_blocks=blocks,
        )
        resources: dict[str, Any] = {"num_cpus": pool.cpus, "num_gpus": pool.gpus, "batch_size": 1}
        if pool.nodes:
            resources["label_selector"] = {**pool.nodes}
        if pool.actors is None:
            return names.map_batches(
                lambda batch: _Worker(make, attempts, f"{attempts.stage} task", directory)(batch),
                max_retries=_WITHOUT_END,
                **resources,
            )
        return names.map_batches(
            _Worker,
            fn_constructor_args=(make, attempts, f"{attempts.stage} actor", directory),
            compute=ray.data.ActorPoolStrategy(
                size=min(pool.actors, len(items)),
                max_tasks_in_flight_per_actor=pool.shards_at_once + 1,
                max_concurrent_calls_per_actor=pool.shards_at_once,
                enable_true_multi_threading=pool.shards_at_once > 1,
            ),
            max_task_retries=_WITHOUT_END,
            **resources,
        )
