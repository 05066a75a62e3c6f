"""Memory that a new process can use on this machine, within the limit of its control group."""

from collections.abc import Iterator
from pathlib import Path

_FILES_V2 = ("memory.max", "memory.current", "inactive_file")
_FILES_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_memory_gib(root: Path = Path("/")) -> float | None:
    """Return the memory that is free or can be freed at once, in GiB, or None if the system does not tell.

    Pages that only cache files count as free: the kernel drops them when a process needs memory. In a
    container the limit of its control group, version 1 or 2, is respected.

    Args:
        root: directory in which `proc` and `sys` are mounted.
    """
    available = [*_of_machine(root / "proc/meminfo"), *_of_group(root / "sys/fs/cgroup")]
    return min(available) / 2**30 if available else None


def _of_machine(meminfo: Path) -> Iterator[int]:
    """Yield MemAvailable in bytes, if the file states it."""
    if meminfo.is_file():
        entries = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in entries:
            yield int(entries["MemAvailable"].split()[0]) * 1024


def _of_group(folder: Path) -> Iterator[int]:
    """Yield the bytes left under the limit of the control group, if there is a limit."""
    for place, (limit, usage, cached) in ((folder, _FILES_V2), (folder / "memory", _FILES_V1)):
        if not all((place / name).is_file() for name in (limit, usage, "memory.stat")):
            continue
        allowed = (place / limit).read_text().strip()
        if allowed == "max":
            continue
        counts = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
        yield int(allowed) - int((place / usage).read_text()) + int(counts.get(cached, 0))
