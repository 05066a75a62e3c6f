"""Signal handlers: SIGTERM and SIGHUP end a command like Ctrl-C, and all resources are released.

The first signal raises an exception in the main thread, so that `finally` blocks run: the lease is released
and Ray is shut down. The process ends at once after a second Ctrl-C, or if the command has not ended
`_GRACE_S` after the first signal, because Kubernetes and systemd would kill it soon after.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE_S = 20.0
"""Seconds until the process is ended by force. Kubernetes kills after 30 s; releasing the lease and stopping
Ray takes less than 10 s."""
_active = False
_first: int | None = None
"""Number of the first signal that the running command received; None: none."""


@contextmanager
def signals_end_command() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block if a signal to end arrives, as Ctrl-C does; see `received`.

    Without effect outside the main thread.
    """
    global _active, _first
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    _active, _first = True, None
    install_handlers()
    try:
        yield
    finally:
        _active = False
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def received() -> int | None:
    """Return the number of the first signal that the running command received; None if there was none.

    The exception does not tell it, because Ray may replace ours by its own.
    """
    return _first


def install_handlers() -> None:
    """Install our handlers again if a command runs, because Ray replaces them when it starts.

    The handlers of Ray's C++ side print a stack trace and abort the process with signal 6.
    """
    if not _active or threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP; keep that
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    """Handle a signal; uses `os.write`, because the signal may interrupt a call of Python's own streams."""
    global _first
    if _first is not None:
        if number == signal.SIGINT:
            os._exit(128 + number)
        return
    _first = number
    if number == signal.SIGINT:
        os.write(2, b"\ninterrupted: ending what was started; Ctrl-C again ends at once\n")
    watchdog = threading.Timer(_GRACE_S, os._exit, (128 + number,))
    watchdog.daemon = True
    watchdog.start()
    raise KeyboardInterrupt(signal.Signals(number).name)
