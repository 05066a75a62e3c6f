"""The records that the processes of a profiled stage left, one file for each process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multicsr.execution.profiling import ActivityRecord, Record, SamplesRecord, TraceRecord, record_of


@dataclass(frozen=True)
class ProfiledProcess:
    """The records of one process, in the order in which they were written."""

    pid: int
    activities: Sequence[ActivityRecord]
    samples: Sequence[SamplesRecord]
    slices: Sequence[TraceRecord]

    @property
    def cpu_s(self) -> float:
        """Return the CPU seconds up to its last record, with those of the processes that it started."""
        last = max(self.activities, key=lambda each: each.end_s, default=None)
        return last.cpu_s + last.children_cpu_s if last else 0.0


def read_processes(folder: Path) -> list[ProfiledProcess]:
    """Return the processes that recorded something, sorted by their numbers."""
    found = []
    for path in folder.glob("*.jsonl"):
        records: list[Record] = [record_of.validate_json(line) for line in path.read_bytes().splitlines()]
        found.append(
            ProfiledProcess(
                int(path.stem),
                [each for each in records if isinstance(each, ActivityRecord)],
                [each for each in records if isinstance(each, SamplesRecord)],
                [each for each in records if isinstance(each, TraceRecord)],
            )
        )
    return sorted(found, key=lambda process: process.pid)
