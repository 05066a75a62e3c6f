"""The end of a process of the command line or of a job."""

import atexit
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


def run_process(call: Callable[[], int]) -> NoReturn:
    """Call a function and end the process with the exit code that it returns.

    As by `sys.exit`, threads are joined and exit handlers called; but the interpreter is not finalized.
    Threads of C++ libraries live as long as the process. If one of Arrow's needs the interpreter while it is
    finalized, to free a buffer of Python's, it aborts the process: after the whole output, with code 134.
    """
    codes: list[int] = []
    atexit.register(_end_at_once, codes)  # handlers are called in reverse order: this one after those of Ray
    codes.append(call())
    sys.exit(codes[-1])


def _end_at_once(codes: list[int]) -> None:
    """End the process with the exit code; if an exception left the call, Python shows it."""
    if not codes:
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed or full; `guarded` has seen to the exit code
            stream.flush()
    os._exit(codes[0])
