"""Sessions of Ray that last for a command and start only when a worker is needed."""

import logging
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from multicsr.errors import ConfigError, RunError
from multicsr.execution.profiling import starting_ray
from multicsr.execution.signals import install_handlers
from multicsr.messages.captured_output import take_over_logger
from multicsr.messages.foreign_errors import cannot_start

_CONNECT_S = 5.0
"""Timeout of a connection to RAY_ADDRESS, in seconds."""
_EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""An HTTP/2 frame with length 0, type 4 (SETTINGS), no flags, stream 0."""
_OBJECT_STORE_BYTES = 256 * 2**20
"""Size of Ray's object store. It holds names and reports of shards, no rows, so that Ray's default of 30% of
the memory is not needed."""

_STARTS = 3
_TOO_SLOW = "timed out during startup"
"""Words of Ray's error if the processes of its node are not there in time."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _LazySession:
    """State of `lazy_ray_session`."""

    at_end: ExitStack
    """Stack that will shut Ray down."""
    cpus: float
    announce: Callable[[str], None]


_lazy_session: ContextVar[_LazySession | None] = ContextVar("at_need", default=None)


@contextmanager
def lazy_ray_session(cpus: float, announce: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Share one Ray among all calls of `start_ray` in the block: from the first call to the end of the block.

    If all work was done before, `start_ray` is not called and Ray is not started. A block inside such a block
    shares its Ray.

    Args:
        cpus: minimum of the argument of `start_ray`.
        announce: called with a line of text before Ray is started, which takes a while.
    """
    if _lazy_session.get() is not None:
        yield
        return
    with ExitStack() as at_end:
        before = _lazy_session.set(_LazySession(at_end, cpus, announce))
        try:
            yield
        finally:
            _lazy_session.reset(before)


@contextmanager
def start_ray(cpus: float = 0) -> Iterator[None]:
    """Provide Ray while the block runs: a running session, the cluster at RAY_ADDRESS, or a local Ray.

    Args:
        cpus: number of CPUs that the largest pool reserves. A local Ray gets two more logical CPUs, because a
            pool that takes all of them would wait forever for the tasks that feed it.

    Raises:
        ConfigError: RAY_ADDRESS is not the address of a cluster.
        RunError: Ray cannot be started or joined.
    """
    import ray

    with ExitStack() as now:
        if not ray.is_initialized():
            session = _lazy_session.get() or _LazySession(now, 0.0, lambda text: None)
            session.announce(_announcement())
            with starting_ray():
                session.at_end.enter_context(_connected(max(cpus, session.cpus)))
        yield


def _announcement() -> str:
    """Return the line about what takes a while."""
    address = os.environ.get("RAY_ADDRESS")
    return f"joining the Ray cluster at {address}" if address else "starting Ray on this machine"


@contextmanager
def _connected(cpus: float) -> Iterator[None]:
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if address:
        _require_listener(address)
    take_over_logger("ray")
    try:
        if address:
            with _quiet_start():
                ray.init(logging_level="error", log_to_driver=False)
        else:
            _start_here(max(os.cpu_count() or 1, math.ceil(cpus) + 2))
    except Exception as error:  # Ray raises a plain Exception if a node does not start in time
        ray.shutdown()
        raise _not_started(address, error) from error
    install_handlers()
    take_over_logger("ray")
    try:
        yield
    finally:
        ray.shutdown()


def _start_here(num_cpus: int) -> None:
    """Start Ray on this machine, again if its node was too slow: Ray waits for it for 30 s."""
    import ray

    for starts_left in reversed(range(_STARTS)):
        try:
            with _quiet_start():
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    logging_level="error",
                    log_to_driver=False,
                )
            return
        except Exception as error:  # Ray raises a plain Exception
            if not starts_left or _TOO_SLOW not in str(error):
                raise
            ray.shutdown()
            _log.warning("Ray did not start within 30 s on this busy machine; it is started again")


def _require_listener(address: str) -> None:
    """Raise if no Ray cluster answers at RAY_ADDRESS. Ray would try for a minute and then abort the process.

    Raises:
        ConfigError: it is not the address of a cluster.
        RunError: nothing listens there, or something that is not Ray.
    """
    if address in ("auto", "local"):
        return
    if "://" in address and not address.startswith("ray://"):
        raise ConfigError(
            f"RAY_ADDRESS: {address} is no address of a cluster; give HOST:6379 as `ray start` prints it "
            "(http://HOST:8265 is for `multicsr submit --to ray --address`)"
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(
            f"RAY_ADDRESS: {address} is not HOST:PORT, such as 10.0.0.5:6379; unset it for a local Ray"
        )
    remedy = "correct it, or unset it for a local Ray"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S) as connection:
            is_ray = os.environ.get("RAY_USE_TLS", "0") != "0" or _speaks_http2(connection)
    except OSError as error:
        raise cannot_start(f"RAY_ADDRESS: no Ray cluster answers at {address}", error, remedy) from error
    if not is_ray:
        raise RunError(f"RAY_ADDRESS: what answers at {address} is no Ray cluster; {remedy}")


def _speaks_http2(connection: socket.socket) -> bool:
    """Return True if the server answers the start of an HTTP/2 connection, as every gRPC server does."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _EMPTY_SETTINGS)
    answer = b""
    while len(answer) < len(_EMPTY_SETTINGS):
        if not (part := connection.recv(len(_EMPTY_SETTINGS) - len(answer))):
            return False
        answer += part
    return answer[3] == _EMPTY_SETTINGS[3]


def _not_started(address: str | None, error: Exception) -> RunError:
    if address:
        return cannot_start(
            f"RAY_ADDRESS: the Ray cluster at {address} cannot be joined",
            error,
            "does it have the same versions of Ray and Python? Unset RAY_ADDRESS for a local Ray",
        )
    return cannot_start(
        "Ray does not start on this machine",
        error,
        "free memory and disk (RAY_TMPDIR, /dev/shm), end other programs, and run the command again",
    )


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Suppress the output of Ray's C++ side to standard error while Ray starts, unless logging is at INFO.

    RAY_BACKEND_LOG_LEVEL suppresses a warning about the way in which Ray Data starts actors. Ray then prints
    once, at its start and directly to the file descriptor, that the variable is set; so the descriptor is
    redirected for that time. Errors of the start are still raised as exceptions.
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
