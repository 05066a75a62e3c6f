"""Life of the server process: it listens at once, loads the model, and ends by a signal.

After the first signal nothing new is taken, and requests in hand are finished for `grace_s`; after a second
one, or after that time, they are broken off.
"""

import asyncio
import ipaddress
import os
import re
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.messages.terminal import echo, echo_error
from multicsr.serve.app import Service

if TYPE_CHECKING:
    from multicsr.serve.tasks import Tasks

TOKEN = "MULTICSR_SERVE_TOKEN"
"""Environment variable that holds the token of the server."""
_BREAK_OFF_S = 2.0
"""Seconds for the handlers of requests that are broken off."""
_LOOK_S = 0.05
"""Seconds between two looks at the requests in hand while the server ends."""
T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class ServeOptions:
    """Settings of the server; those of the model are in a configuration."""

    name: str
    """Name of the model in requests."""
    host: str
    port: int
    """Port; 0: any that is free."""
    at_once: int
    """Number of requests that are computed at the same time."""
    most_requests: int
    """Number of requests in hand, running and waiting."""
    grace_s: float
    """Seconds for requests in hand after a signal."""


def read_token(host: str) -> str | None:
    """Return the token of the environment; None if there is none and nobody else can reach the server.

    Raises:
        ConfigError: the host is reachable from elsewhere and there is no token, or the token cannot be sent
            in an HTTP header.
    """
    token = os.environ.get(TOKEN)
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigError(
            f"{TOKEN}: the token is empty, or holds white space or characters that are not ASCII"
        )
    if token is None and not _is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines: set {TOKEN} to a token that requests must "
            "carry, or leave --host out"
        )
    return token


def serve(config: Config, options: ServeOptions) -> None:
    """Serve the model of a configuration until a signal.

    Raises:
        ConfigError: the address cannot be used, or the model cannot be loaded as configured.
        WorkerLost: the engine has died.
    """
    token = read_token(options.host)
    asyncio.run(_serve(config, options, token))


async def _serve(config: Config, options: ServeOptions, token: str | None) -> None:
    """Listen, load, and wait for the end."""
    service = Service(options.name, token, options.most_requests)
    runner = web.AppRunner(
        service.app(), access_log=None, handler_cancellation=True, shutdown_timeout=_BREAK_OFF_S
    )
    await runner.setup()
    signals = _Signals()
    try:
        site = web.TCPSite(runner, options.host, options.port)
        try:
            await site.start()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"--host, --port: {options.host}:{options.port}: {reason}") from error
        echo(_address(runner))
        loading = _in_thread(lambda: _load(config, options))
        await _first(signals.first, loading)
        if not loading.done():
            return
        service.start(loading.result())
        echo(f"{options.name} is ready; Ctrl-C ends the server")
        await _first(signals.first, service.failure)
        service.is_ending = True
        await site.stop()
        await _drain(service, signals, 0.0 if service.failure.done() else options.grace_s)
        if service.failure.done():
            raise service.failure.result()
    finally:
        await runner.cleanup()
        await asyncio.to_thread(service.close)
        signals.close()


def _load(config: Config, options: ServeOptions) -> "Tasks":
    """Load the engine; its libraries are imported here, so that the server listens before that."""
    from multicsr.llm.load import load_token_engine
    from multicsr.serve.tasks import Tasks

    return Tasks(load_token_engine(config), options.at_once)


class _Signals:
    """Signals to end, as events of the loop."""

    def __init__(self) -> None:
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.second: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP; keep that
                asyncio.get_running_loop().add_signal_handler(number, self._take)

    def close(self) -> None:
        """Give the signals back."""
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _take(self) -> None:
        for future in (self.first, self.second):
            if not future.done():
                future.set_result(None)
                return


async def _first(*futures: "asyncio.Future[Any]") -> None:
    """Wait until one of the futures is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _drain(service: Service, signals: _Signals, grace_s: float) -> None:
    """Wait for the requests in hand, at most `grace_s` and up to a second signal."""
    if service.num_requests and grace_s:
        echo_error(
            f"{service.num_requests} requests are finished within {grace_s:g} s; Ctrl-C breaks them off"
        )
    with suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            while service.num_requests and not signals.second.done():
                await asyncio.sleep(_LOOK_S)


def _in_thread(call: Callable[[], T]) -> "asyncio.Future[T]":
    """Run a call in a daemon thread, so that a signal need not wait for it.

    Ctrl-C goes to all processes of a terminal. The thread blocks it, and the processes of vLLM inherit that,
    so that they go on with the requests in hand.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        resource_tracker.ensure_running()  # it unblocks the signal where it is started
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            finish = partial(future.set_result, call())
        except Exception as error:  # noqa: BLE001 - it is raised where the future is awaited
            finish = partial(future.set_exception, error)
        with suppress(RuntimeError):  # the loop has been closed by a signal
            loop.call_soon_threadsafe(finish)

    threading.Thread(target=run, name="load", daemon=True).start()
    return future


def _is_loopback(host: str) -> bool:
    """Return True for an address that only this machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(runner: web.AppRunner) -> str:
    """Return the URL at which a client finds the server."""
    host, port, *_ = runner.addresses[0]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
