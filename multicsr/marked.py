"""Processes that are known again by a mark in their environment, and ended; no other one is.

By the time a signal is sent a number may belong to another process; a handle cannot. For Linux only.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_PROC = Path("/proc")


def carries(pid: int, mark: str) -> bool:
    """Whether the process lives and was started with `NAME=value` in its environment."""
    try:
        started_with = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        state = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except OSError:
        return False
    return mark.encode() in started_with and state.split()[0] != "Z"


def marked(mark: str) -> list[int]:
    """All processes of this user that carry the mark."""
    numbers = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [pid for pid in numbers if pid != os.getpid() and carries(pid, mark)]


def end(mark: str, groups: Sequence[Sequence[int]], patience_s: float) -> None:
    """End every process that carries the mark.

    Args:
        groups: asked to end, a group when those before it are gone; the others end with them.
        patience_s: what is still there then is killed.
    """
    deadline = time.monotonic() + patience_s
    for group in groups:
        for pid in group:
            _send(pid, mark, signal.SIGTERM)
        while any(carries(pid, mark) for pid in group) and time.monotonic() < deadline:
            time.sleep(0.1)
    while left := marked(mark):
        for pid in left if time.monotonic() > deadline else ():
            _send(pid, mark, signal.SIGKILL)
        time.sleep(0.1)


def _send(pid: int, mark: str, number: signal.Signals) -> None:
    with suppress(OSError), _handle(pid) as handle:
        # Looked at after the handle was taken: what carries the mark now is what the signal goes to.
        if carries(pid, mark):
            signal.pidfd_send_signal(handle, number)


@contextmanager
def _handle(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)
