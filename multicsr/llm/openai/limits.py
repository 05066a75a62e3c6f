"""Pace of the requests to an endpoint: concurrency that adapts, and pauses that the endpoint asks for.

The number of requests in flight grows with every answer and falls by a quarter when the endpoint is busy:
additive increase, multiplicative decrease, as in TCP. A pause holds for all threads, because the limits of an
endpoint are those of the account and not of a request.
"""

import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from multicsr.periodic import backoff_s

_FIRST = 4.0
"""Number of requests in flight at the start; `llm.concurrency` if that is less."""
_FALL = 0.75
"""Factor of the limit when the endpoint is busy."""
_CAUTION = 0.25
"""Factor of the growth after the first fall: the limit is known then, and each probe of it costs a 429."""
_LONGEST_BACKOFF_S = 30.0
"""Longest pause for all threads if a busy endpoint does not state how long to wait."""
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhd])")


class RateLimiter:
    """Limiter of the requests of all threads of an actor. Thread-safe.

    `enter` waits for the permission to send a request; `leave` returns it with the result.
    """

    limit: float
    """Number of requests that may be in flight, of which the whole part counts."""

    def __init__(
        self,
        most: int,
        longest_pause_s: float,
        backoff_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with few requests in flight.

        Args:
            most: maximum number of requests in flight.
            longest_pause_s: longest pause, whatever the endpoint asks for.
            backoff_s: first pause after a busy endpoint that does not state how long to wait.
            clock: returns a time in seconds.
        """
        self.limit = min(_FIRST, float(most))
        self._most = most
        self._longest_pause_s = longest_pause_s
        self._backoff_s = backoff_s
        self._clock = clock
        self._changed = threading.Condition()
        self._in_flight = 0
        self._resumes_s = -math.inf
        self._fell_s = -math.inf
        self._falls_in_a_row = 0
        self._has_fallen = False
        self._must_probe = False
        self._is_probing = False
        self._is_closed = False

    def wait_s(self) -> float:
        """Return the seconds until a request may start; infinity if one in flight must end before."""
        pause_s = self._resumes_s - self._clock()
        if pause_s > 0:
            return pause_s
        places = 0 if self._must_probe and self._is_probing else max(math.floor(self.limit), 1)
        return 0.0 if self._in_flight < places else math.inf

    def enter(self) -> float:
        """Wait until a request may start, or until `close`; return the time of the start."""
        with self._changed:
            while (wait_s := self.wait_s()) > 0 and not self._is_closed:
                self._changed.wait(None if wait_s == math.inf else wait_s)
            self._in_flight += 1
            self._is_probing = True
            return self._clock()

    def leave(self, started_s: float, status: int, headers: Mapping[str, str]) -> None:
        """End a request that `enter` began.

        Args:
            started_s: the time that `enter` returned.
            status: HTTP status code of the response; 0 if there was none.
            headers: headers of the response.
        """
        with self._changed:
            self._in_flight -= 1
            if started_s >= self._fell_s:
                self._is_probing = False
            self._pause(seconds_to_reset(headers))
            if is_busy(status, headers):
                self._fall(started_s, retry_after_s(headers))
            elif 200 <= status < 300:
                if started_s >= self._fell_s:
                    self._falls_in_a_row, self._must_probe = 0, False
                growth = _CAUTION if self._has_fallen else 1.0
                self.limit = min(self.limit + growth / self.limit, float(self._most))
            self._changed.notify_all()

    def close(self) -> None:
        """Let all threads go that wait in `enter`."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _fall(self, started_s: float, wait_s: float) -> None:
        """Lower the limit, once for all requests that were in flight together.

        An endpoint that does not state how long to wait gets a single request after the pause, until it
        answers one.
        """
        self._pause(wait_s)
        if started_s < self._fell_s:
            return
        if not wait_s:
            self._pause(backoff_s(self._falls_in_a_row, self._backoff_s, _LONGEST_BACKOFF_S))
        self._has_fallen = True
        self._must_probe, self._is_probing = not wait_s, False
        self._falls_in_a_row += 1
        self._fell_s = self._clock()
        self.limit = max(self.limit * _FALL, 1.0)

    def _pause(self, seconds: float) -> None:
        """Start no request for some seconds."""
        if seconds > 0:
            self._resumes_s = max(self._resumes_s, self._clock() + min(seconds, self._longest_pause_s))


def is_busy(status: int, headers: Mapping[str, str]) -> bool:
    """Return True if an endpoint asks for fewer requests."""
    return status == 429 or (status == 503 and "Retry-After" in headers)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds of the Retry-After header, which holds a number or a date; 0 if there is none."""
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return 0.0
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def seconds_to_reset(headers: Mapping[str, str]) -> float:
    """Return the seconds until the account may send again, by its limits in the headers; 0 if it may now.

    These are `x-ratelimit-remaining-requests` and `-tokens`, with the durations `x-ratelimit-reset-requests`
    and `-tokens`, such as `6m0s`.
    """
    waits = [
        _duration_s(headers.get(f"x-ratelimit-reset-{name}", ""))
        for name in ("requests", "tokens")
        if _is_spent(headers.get(f"x-ratelimit-remaining-{name}", ""))
    ]
    return max(waits, default=0.0)


def _is_spent(remaining: str) -> bool:
    """Return True for a number that is 0 or less."""
    try:
        return float(remaining) <= 0
    except ValueError:
        return False


def _duration_s(text: str) -> float:
    """Return the seconds of a duration such as `1h2m3.5s`, `20ms` or `7`; 0 for anything else."""
    parts = _DURATION.findall(text)
    if parts and "".join(map("".join, parts)) == text.strip():
        return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
