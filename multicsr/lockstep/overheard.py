"""What child processes print, kept so that an error can name its cause, and shown only when asked for."""

import logging
import os
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_KEPT_LINES = 400
_ERROR = re.compile(r"\b(?:\w+\.)*(\w*(?:Error|Exception)): (\S.*)$")


class Overheard:
    """Lines from the processes that were started within `listening`, for as long as these live."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take over standard output and error of this process, which the children inherit."""
        read_end, write_end = os.pipe()
        kept = os.dup(1), os.dup(2)
        echo = os.dup(2) if logging.getLogger().isEnabledFor(logging.INFO) else None
        for stream in (1, 2):
            os.dup2(write_end, stream)
        os.close(write_end)
        threading.Thread(target=self._read, args=(read_end, echo), name="overheard", daemon=True).start()
        try:
            yield
        finally:
            for stream, saved in zip((1, 2), kept, strict=True):
                os.dup2(saved, stream)
                os.close(saved)

    def cause(self) -> str | None:
        """The first error that was printed: those after it follow from it."""
        for line in list(self._lines):
            if found := _ERROR.search(line):
                return f"{found[1]}: {found[2]}"
        return None

    def forget(self) -> None:
        """What was printed so far explains nothing that comes later."""
        self._lines.clear()

    def _read(self, read_end: int, echo: int | None) -> None:
        with os.fdopen(read_end, "r", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._lines.append(line.rstrip())
                if echo is not None:
                    os.write(echo, line.encode())
