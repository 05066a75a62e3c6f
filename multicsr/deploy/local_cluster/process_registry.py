"""Search and termination of processes that carry a mark, which is an entry in their environment.

No other process is ever touched. Signals are sent through a process handle (pidfd): by the time a signal is
sent, a process number may belong to another process, but a handle cannot. This works on Linux only.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_PROC = Path("/proc")


def carries(pid: int, mark: str) -> bool:
    """Return whether the process is alive and was started with the mark, `NAME=value`, in its environment."""
    try:
        started_with = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        state = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except OSError:
        return False
    return mark.encode() in started_with and state.split()[0] != "Z"


def tagged(mark: str) -> list[int]:
    """Return the numbers of all processes of this user that carry the mark, except this process."""
    numbers = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [pid for pid in numbers if pid != os.getpid() and carries(pid, mark)]


def end(mark: str, groups: Sequence[Sequence[int]], patience_s: float) -> None:
    """End every process that carries the mark, and return when all have ended.

    Args:
        mark: `NAME=value`, the entry in the environment of the processes.
        groups: groups of processes that get SIGTERM, one group after the processes of the one before have
            ended. The other processes are expected to end with them.
        patience_s: time after which all processes that are still alive get SIGKILL.
    """
    deadline = time.monotonic() + patience_s
    for group in groups:
        for pid in group:
            _send(pid, mark, signal.SIGTERM)
        while any(carries(pid, mark) for pid in group) and time.monotonic() < deadline:
            time.sleep(0.1)
    while left := tagged(mark):
        for pid in left if time.monotonic() > deadline else ():
            _send(pid, mark, signal.SIGKILL)
        time.sleep(0.1)


def _send(pid: int, mark: str, number: signal.Signals) -> None:
    with suppress(OSError), _handle(pid) as handle:
        # Checked after the handle was opened, so the process with the mark is the one that gets the signal.
        if carries(pid, mark):
            signal.pidfd_send_signal(handle, number)


@contextmanager
def _handle(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)
