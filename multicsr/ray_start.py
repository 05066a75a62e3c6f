"""Ray for the duration of a command, no sooner than somebody needs it."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

_OBJECT_STORE_BYTES = 256 * 2**20
"""Shard names and reports travel through it, no rows: Ray's default of 30% of the memory is not needed."""
_at_need: ContextVar["tuple[ExitStack, float] | None"] = ContextVar("at_need", default=None)
"""What ends the Ray that is started at need, and the CPUs it is to have."""


@contextmanager
def ray_at_need(cpus: float) -> Iterator[None]:
    """One Ray for all that starts one meanwhile: from the first that does, to the end.

    What was done already needs no worker, and where all was done no Ray is started.

    Args:
        cpus: see `start_ray`.
    """
    with ExitStack() as at_end:
        before = _at_need.set((at_end, cpus))
        try:
            yield
        finally:
            _at_need.reset(before)


@contextmanager
def start_ray(cpus: float = 0) -> Iterator[None]:
    """Ray for the duration: the cluster that RAY_ADDRESS names, one that is up already, or a local one.

    Args:
        cpus: what the largest pool reserves. A local Ray gets two logical CPUs more, because a pool that
            takes them all would wait for ever for the tasks that feed it.
    """
    import ray

    with ExitStack() as now:
        if not ray.is_initialized():
            at_end, most = _at_need.get() or (now, 0.0)
            at_end.enter_context(_connected(max(cpus, most)))
        yield


@contextmanager
def _connected(cpus: float) -> Iterator[None]:
    import ray

    with _quiet_start():
        if os.environ.get("RAY_ADDRESS"):
            ray.init(logging_level="error", log_to_driver=False)
        else:
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, math.ceil(cpus) + 2),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                logging_level="error",
                log_to_driver=False,
            )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep Ray's C++ side from talking to standard error, unless logging is at INFO.

    It would warn of the way in which Ray Data starts actors; told by its variable to be silent, it says so
    once, while it starts, past Python. Errors of the start are exceptions all the same.
    """
    if logging.getLogger().isEnabledFor(logging.INFO):
        yield
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
