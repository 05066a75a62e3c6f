"""Something done again and again beside the work."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(call: Callable[[], None], every_s: float) -> Iterator[None]:
    """While the block runs, call this every so often in a thread; it has ended when the block is left.

    `call` raises nothing: there is nobody to hear it.
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
