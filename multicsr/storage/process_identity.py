"""Decide if a process that a record names is dead, on the machine where it ran.

A process id alone is no identity: ids are reused, and start anew in every container and after every boot. The
files that are read here exist only on Linux; on other systems the answer is unknown, and callers must wait
for a heartbeat.
"""

import os
import socket
from pathlib import Path
from typing import Self

from multicsr.artifacts import FileRecord

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_DEAD_STATES = ("Z", "X")
"""States of a process that ended: Z (zombie), until its parent reads the exit code, and X (dead)."""


class ProcessIdentity(FileRecord):
    """An identity that distinguishes a process from every other one that ever ran."""

    host: str
    boot: str
    """Boot id of the machine; it changes with every boot."""
    pid_namespace: str
    """Namespace of process ids; it differs between containers, which number their processes separately."""
    pid: int
    started: int
    """Start of the process, in clock ticks since the boot."""

    @classmethod
    def own(cls) -> Self | None:
        """Return the identity of this process; None if the system does not provide it."""
        try:
            place = _place()
            _, started = _state_and_start(os.getpid())
        except (OSError, ValueError, IndexError):
            return None
        host, boot, namespace = place
        return cls(host=host, boot=boot, pid_namespace=namespace, pid=os.getpid(), started=started)

    def is_dead(self) -> bool:
        """Return True if the process ran on this machine and is certainly dead; False if that is unknown."""
        try:
            if _place() != (self.host, self.boot, self.pid_namespace):
                return False
            os.kill(self.pid, 0)
            state, started = _state_and_start(self.pid)
        except ProcessLookupError:
            return True
        except (OSError, ValueError, IndexError, OverflowError):
            return False  # another user's process, or a hidden one
        return started != self.started or state in _DEAD_STATES


def _place() -> tuple[str, str, str]:
    """Return the host name, the boot id and the namespace of process ids."""
    boot = _BOOT_ID.read_text(encoding="ascii").strip()
    return socket.gethostname(), boot, os.readlink(_PROC / "self/ns/pid")


def _state_and_start(pid: int) -> tuple[str, int]:
    """Return the state and the start time of a process: fields 3 and 22 of its `stat` (proc(5))."""
    # The second field is the name in parentheses and may contain any character, even spaces and parentheses.
    text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])
