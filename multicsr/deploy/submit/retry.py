"""Retries of requests to servers.

A request is repeated while the server is busy or unreachable. A denial or an unknown object is reported at
once.
"""

import time
from collections.abc import Callable
from itertools import count
from typing import TypeVar

from multicsr.periodic import backoff_s

T = TypeVar("T")
TRIES = 7
"""Number of tries for one request."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
_LONGEST_ASKED_S = 60.0
"""Upper bound of the pause that a server may ask for."""
_BUSY = (408, 425, 429)
"""HTTP status codes below 500 after which the same request may succeed."""


class ApiError(Exception):
    """The failure of a request: there was no answer, or not the one that was asked for."""

    def __init__(
        self,
        status: int,
        text: str,
        retry_after_s: float | None = None,
        *,
        reason: str = "",
        final: bool = False,
        busy: bool = False,
    ) -> None:
        super().__init__(text)
        self.status = status
        """HTTP status code; 0 if there was no answer."""
        self.text = text
        self.retry_after_s = retry_after_s
        """Pause that the server asks for, in seconds; None if it asks for none."""
        self.reason = reason
        """Machine-readable reason of a Kubernetes Status; empty if the answer was no Status."""
        self.final = final
        """True if the answer stays the same until somebody changes something, such as a certificate."""
        self.busy = busy
        """True if the server asks for the same request once more, whatever the status code."""

    @property
    def retryable(self) -> bool:
        """Return whether the fault is temporary, so that the same request may get another answer."""
        return not self.final and (
            self.busy or self.status == 0 or self.status in _BUSY or self.status >= 500
        )


def with_retries(call: Callable[[], T]) -> T:
    """Return the result of `call`; repeat the call after a temporary fault.

    `call` is made at most `TRIES` times, with the pauses of `pause_s` between the tries.

    Raises:
        ApiError: the first fault that is not temporary, or the fault of the last try.
    """
    for number in count():
        try:
            return call()
        except ApiError as fault:
            if not fault.retryable or number >= TRIES - 1:
                raise
            time.sleep(pause_s(number, fault.retry_after_s))
    raise AssertionError("every try returns or raises")


def pause_s(number: int, asked_s: float | None = None) -> float:
    """Return the pause before the next try, in seconds.

    Args:
        number: number of pauses before this one.
        asked_s: pause that the server asks for, in seconds.

    Returns:
        `asked_s`, at most 60 s. Without it, a pause that doubles with every try, from 0.25 s to at most 8 s,
        times a random factor between 0.5 and 1.
    """
    if asked_s is not None:
        return min(asked_s, _LONGEST_ASKED_S)
    return backoff_s(number, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
