"""Periodic calls of a function in a background thread, and pauses between tries."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def run_periodically(call: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call a function periodically in a background thread while the block runs.

    The thread has ended when the block is left.

    Args:
        call: the function. It must not raise, because nothing would handle the exception.
        every_s: seconds before the first call and between calls.
    """
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(every_s):
            call()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def backoff_s(number: int, first_s: float, longest_s: float) -> float:
    """Return the pause before the next try, in seconds; random, so that clients do not retry all at once.

    Args:
        number: number of pauses before this one.
        first_s: the pause at `number` 0; it doubles with every try.
        longest_s: upper bound of the pause.

    Returns:
        The pause times a random factor between 0.5 and 1.
    """
    # The exponent is bounded, because following a job for days may count thousands of tries.
    return min(first_s * 2.0 ** min(number, 16), longest_s) * random.uniform(0.5, 1.0)
