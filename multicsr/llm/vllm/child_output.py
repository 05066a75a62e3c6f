"""Capture of the output of child processes, so that an error can name its cause.

The output is shown only if the log level is INFO or lower.
"""

import logging
import os
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_KEPT_LINES = 400
"""Number of last lines that are kept."""
_ERROR = re.compile(r"\b(?:\w+\.)*(\w*(?:Error|Exception)): (\S.*)$")


class ChildOutput:
    """Output lines of the processes started within `listening`, collected for as long as they live."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Redirect standard output and error of this process, which its children inherit, to a pipe."""
        read_end, write_end = os.pipe()
        kept = os.dup(1), os.dup(2)
        echo = os.dup(2) if logging.getLogger().isEnabledFor(logging.INFO) else None
        for stream in (1, 2):
            os.dup2(write_end, stream)
        os.close(write_end)
        threading.Thread(target=self._read, args=(read_end, echo), name="child_output", daemon=True).start()
        try:
            yield
        finally:
            for stream, saved in zip((1, 2), kept, strict=True):
                os.dup2(saved, stream)
                os.close(saved)

    def cause(self) -> str | None:
        """Return the first error that was printed, or None; later errors are consequences of the first."""
        for line in list(self._lines):
            if found := _ERROR.search(line):
                return f"{found[1]}: {found[2]}"
        return None

    def forget(self) -> None:
        """Discard the lines printed so far: they do not explain later errors."""
        self._lines.clear()

    def _read(self, read_end: int, echo: int | None) -> None:
        """Keep the lines that come from the pipe, and copy them to `echo` unless it is None."""
        with os.fdopen(read_end, "r", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._lines.append(line.rstrip())
                if echo is not None:
                    os.write(echo, line.encode())
