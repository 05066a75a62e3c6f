"""Traces of torch: the slices of a process as one file for Perfetto, and the time of each operator."""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, cast

from multicsr.tools.profile.records import ProfiledProcess
from multicsr.tools.profile.time_use import length

_CPU, _GPU = "cpu_op", ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories of the events that count."""


class TraceEvent(TypedDict, total=False):
    """An event of a Chrome trace, of which these fields are used here."""

    ph: str
    cat: str
    name: str
    tid: int
    ts: float
    """Beginning in microseconds."""
    dur: float
    """Duration in microseconds."""


@dataclass
class OperatorTime:
    """Time and number of calls of an operator, or of a kernel."""

    self_s: float = 0.0
    """Time in seconds without the operators that it called."""
    calls: int = 0


@dataclass
class OperatorTimes:
    """Operators in the traces of all processes."""

    traced_s: float = 0.0
    """Wall time that the traces cover, added up over the processes."""
    busy_s: float = 0.0
    """Part of it in which at least one thread of the process was in an operator."""
    cpu: dict[str, OperatorTime] = field(default_factory=lambda: defaultdict(OperatorTime))
    gpu: dict[str, OperatorTime] = field(default_factory=lambda: defaultdict(OperatorTime))

    def add(self, events: Sequence[TraceEvent]) -> None:
        """Add the events of one slice of one process."""
        complete = [event for event in events if event.get("ph") == "X"]
        operators = [event for event in complete if event.get("cat") == _CPU]
        for event, self_us in self_times(operators):
            operator = self.cpu[event["name"]]
            operator.self_s, operator.calls = operator.self_s + self_us / 1e6, operator.calls + 1
        self.busy_s += length((event["ts"], event["ts"] + event["dur"]) for event in operators) / 1e6
        for event in complete:
            if event.get("cat") in _GPU:
                kernel = self.gpu[event["name"]]
                kernel.self_s, kernel.calls = kernel.self_s + event["dur"] / 1e6, kernel.calls + 1


def self_times(events: Iterable[TraceEvent]) -> list[tuple[TraceEvent, float]]:
    """Return each event with its time without the events that it contains in its thread, in microseconds."""
    # Of two events that begin together, the longer one contains the other.
    ordered = sorted(events, key=lambda event: (event["tid"], event["ts"], -event["dur"]))
    times = [event["dur"] for event in ordered]
    open_events: list[int] = []
    for number, event in enumerate(ordered):
        while open_events and not _contains(ordered[open_events[-1]], event):
            open_events.pop()
        if open_events:
            times[open_events[-1]] -= event["dur"]
        open_events.append(number)
    return [*zip(ordered, times, strict=True)]


def _contains(outer: TraceEvent, inner: TraceEvent) -> bool:
    return outer["tid"] == inner["tid"] and inner["ts"] < outer["ts"] + outer["dur"]


def merge_traces(processes: Sequence[ProfiledProcess], records: Path, out: Path) -> OperatorTimes:
    """Write the slices of each process as one file in Chrome's format, and return the times of all operators.

    Args:
        processes: the processes.
        records: folder of the slices.
        out: folder of the files, `trace-ROLE-PID.json.gz`. Their times are microseconds since 1970, as in
            Ray's timeline, so that both can be opened together.
    """
    times = OperatorTimes()
    for process in processes:
        if not process.slices:
            continue
        role = process.slices[-1].role.replace(" ", "-")
        with gzip.open(out / f"trace-{role}-{process.pid}.json.gz", "wt", compresslevel=6) as file:
            file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
            separator = ""
            for each in process.slices:
                events = _read(records / each.name)
                times.add(events)
                times.traced_s += each.seconds
                for event in events:
                    file.write(separator + json.dumps(event))
                    separator = ",\n"
            file.write("\n]}\n")
    return times


def _read(path: Path) -> list[TraceEvent]:
    """Return the events of a slice, with times in microseconds since 1970."""
    trace = json.loads(path.read_bytes())
    base_us = trace.get("baseTimeNanoseconds", 0) / 1000
    return [
        cast("TraceEvent", {**event, "ts": event["ts"] + base_us} if "ts" in event else event)
        for event in trace["traceEvents"]
    ]
