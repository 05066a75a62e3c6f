"""A proxy in front of an S3 that breaks things: errors, cut connections, silence, an outage, revoked keys."""

import random
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Self
from urllib.parse import urlsplit

from tests.support.s3.faults import Fault, Seen
from tests.support.s3.handler import ProxyServer


class FaultyProxy:
    """Stands in front of `upstream` (http://host:port) on a free port of its own. A context manager.

    `rates` and `hang_s` may be set at any time. Where chance decides, one random number is drawn per request:
    a client that sends one request after another meets the same faults with the same `seed`.
    """

    def __init__(
        self,
        upstream: str,
        rates: Mapping[Fault, float] | None = None,
        *,
        seed: int = 0,
        hang_s: float | None = None,
    ) -> None:
        self.rates = dict(rates or {})
        """Probabilities per request; their sum is at most 1."""
        self.hang_s = hang_s
        """None: until the client gives up."""
        self.seen: list[Seen] = []
        """All requests since the start."""
        self.upstream = urlsplit(upstream).netloc
        self._random = random.Random(seed)
        self._judged = threading.Condition()
        self._once: list[tuple[Fault, str | None]] = []
        self._forbidden = False
        self._server: ProxyServer | None = None
        # Bound but never listening: it keeps the port ours while nothing listens there.
        self._guard = socket.socket()
        self._guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._guard.bind(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._guard.getsockname()[1]}"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        self._guard.close()

    def up(self) -> None:
        """Serve, and answer again what `down` or `forbid` refused."""
        self._forbidden = False
        if self._server is None:
            self._server = ProxyServer(self, self._guard.getsockname())

    def down(self) -> None:
        """Cut all connections and refuse new ones, as when the host is gone."""
        if self._server is not None:
            self._server.end()
            self._server = None

    def forbid(self) -> None:
        """Answer 403 AccessDenied to everything, as when the keys are revoked."""
        self._forbidden = True

    def once(self, fault: Fault, method: str | None = None) -> None:
        """Do this to the next request (with that method), before any chance. Several calls queue up."""
        with self._judged:
            self._once.append((fault, method))

    def wait_for(self, requests: int, timeout_s: float = 30.0) -> None:
        """Return when so many requests have come since the start. Raises TimeoutError."""
        with self._judged:
            if not self._judged.wait_for(lambda: len(self.seen) >= requests, timeout_s):
                raise TimeoutError(f"{len(self.seen)} of {requests} requests came in {timeout_s} s")

    @property
    def requests(self) -> Counter[str]:
        """Requests so far, by method."""
        return Counter(seen.method for seen in list(self.seen))

    @property
    def faults(self) -> Counter[Fault]:
        """Faults so far, by kind."""
        return Counter(seen.fault for seen in list(self.seen) if seen.fault is not None)

    def judge(self, method: str, path: str, headers: Iterable[tuple[str, str]]) -> Fault | None:
        """Decide what happens to a request, and note it."""
        with self._judged:
            fault = Fault.FORBIDDEN if self._forbidden else self._queued(method) or self._drawn()
            self.seen.append(Seen(method, path, {name.lower(): value for name, value in headers}, fault))
            self._judged.notify_all()
        return fault

    def _queued(self, method: str) -> Fault | None:
        for index, (_, wanted) in enumerate(self._once):
            if wanted in (None, method):
                return self._once.pop(index)[0]
        return None

    def _drawn(self) -> Fault | None:
        left = self._random.random()
        for fault, rate in self.rates.items():
            left -= rate
            if left < 0:
                return fault
        return None
