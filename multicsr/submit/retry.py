"""A server that is busy or away is asked again; what it forbids or does not know is told at once."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
TRIES = 7
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
_LONGEST_ASKED_S = 60.0
"""However long a server asks us to wait."""
_BUSY = (408, 425, 429)


class Fault(Exception):
    """A request that got no answer, or one that is not what was asked for."""

    def __init__(self, status: int, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        """Of HTTP; 0: there was no answer."""
        self.text = text
        self.retry_after_s = retry_after_s

    @property
    def passing(self) -> bool:
        """Whether the same request may get another answer."""
        return self.status == 0 or self.status in _BUSY or self.status >= 500


def patiently(call: Callable[[], T]) -> T:
    """The result of `call`, which is called again after a passing fault; raises the last one."""
    for number in range(TRIES):
        try:
            return call()
        except Fault as fault:
            if not fault.passing or number == TRIES - 1:
                raise
            time.sleep(pause_s(number, fault.retry_after_s))
    raise AssertionError("every try returns or raises")


def pause_s(number: int, asked_s: float | None = None) -> float:
    """Before which the next try is not made: what the server asks for, or twice as long every time."""
    if asked_s is not None:
        return min(asked_s, _LONGEST_ASKED_S)
    return min(_FIRST_PAUSE_S * 2.0**number, _LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)
