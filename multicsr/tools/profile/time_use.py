"""The use of wall time, of the whole command and of the processes of each role."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from multicsr.tools.profile.records import ProfiledProcess

Span = tuple[float, float]
"""Beginning and end, in seconds since 1970."""
RAY, BEFORE, LOAD, WORK, BETWEEN, AFTER, PROFILER = (
    "Ray starts",
    "before the first worker is ready",
    "models load, nothing works yet",
    "at least one worker works",
    "no worker works, in between",
    "after the last worker",
    "the profiler starts",
)
"""Parts of the wall time, in the order of the page."""


def union(spans: Iterable[Span]) -> list[Span]:
    """Return the union of spans as sorted spans that do not overlap."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def length(spans: Iterable[Span]) -> float:
    """Return the length of the union of spans, in seconds."""
    return sum(end - start for start, end in union(spans))


def within(spans: Iterable[Span], window: Span) -> list[Span]:
    """Return the parts of spans that lie in a window."""
    clipped = ((max(start, window[0]), min(end, window[1])) for start, end in spans)
    return [(start, end) for start, end in clipped if start < end]


def wall_parts(processes: Sequence[ProfiledProcess], run: Span) -> dict[str, float]:
    """Divide the wall time of a command into parts, in seconds; their sum is the wall time.

    A moment at which several things happen counts for the first of: work, loading, start of Ray, start of the
    profiler.

    Args:
        processes: the processes of the command.
        run: beginning and end of the command.
    """
    spans = {
        what: within(
            ((each.start_s, each.end_s) for one in processes for each in one.activities if each.what == what),
            run,
        )
        for what in ("work", "load", "ray", "profiler")
    }
    parts, covered = dict[str, float](), list[Span]()
    for what, name in (("work", WORK), ("load", LOAD), ("ray", RAY), ("profiler", PROFILER)):
        before = length(covered)
        covered = union([*covered, *spans[what]])
        parts[name] = length(covered) - before
    workers = union([*spans["work"], *spans["load"]]) or [run]
    first, last = workers[0][0], workers[-1][1]
    for name, window in ((BEFORE, (run[0], first)), (BETWEEN, (first, last)), (AFTER, (last, run[1]))):
        parts[name] = window[1] - window[0] - length(within(covered, window))
    order = (RAY, BEFORE, LOAD, WORK, BETWEEN, AFTER, PROFILER)
    return {name: parts[name] for name in order if parts[name] > 0}


@dataclass(frozen=True)
class RoleTime:
    """Use of the time of all processes of one role, from the first record of each to the last of the role."""

    role: str
    num_processes: int
    cpu_s: float
    """CPU time of these processes in seconds. A process with several roles counts for that of most work."""
    loading_s: float
    computing_s: float
    """Time of work in which the process computed."""
    waiting_s: float
    """Time of work in which the process waited, as a share of the samples times the time of work."""
    idle_s: float
    """Time in which the process neither loaded nor worked."""

    @property
    def seconds(self) -> float:
        """Return the sum of all uses."""
        return self.loading_s + self.computing_s + self.waiting_s + self.idle_s

    def shares(self) -> tuple[float, float, float, float]:
        """Return the shares of loading, computing, waiting and idle time; their sum is 1."""
        uses = (self.loading_s, self.computing_s, self.waiting_s, self.idle_s)
        loading, computing, waiting, idle = (each / self.seconds if self.seconds else 0.0 for each in uses)
        return loading, computing, waiting, idle


def role_times(processes: Sequence[ProfiledProcess]) -> list[RoleTime]:
    """Return the use of time of each role, the largest CPU time first. The driver without work has none."""
    spans: dict[str, dict[int, dict[str, list[Span]]]] = {}
    for process in processes:
        for each in process.activities:
            if each.what in ("work", "load"):
                of_process = spans.setdefault(each.role, {}).setdefault(process.pid, {"work": [], "load": []})
                of_process[each.what].append((each.start_s, each.end_s))
    cpu_s = dict.fromkeys(spans, 0.0)
    for process in processes:
        worked = {role: length(of[process.pid]["work"]) for role, of in spans.items() if process.pid in of}
        if worked:
            cpu_s[max(worked, key=worked.__getitem__)] += process.cpu_s
    times = [_role_time(role, of, cpu_s[role], _waiting_share(processes, role)) for role, of in spans.items()]
    return sorted(times, key=lambda each: -each.cpu_s)


def _role_time(
    role: str, spans: Mapping[int, Mapping[str, Sequence[Span]]], cpu_s: float, waiting_share: float
) -> RoleTime:
    busy = {pid: union([*of["work"], *of["load"]]) for pid, of in spans.items()}
    end = max(each[-1][1] for each in busy.values())
    working_s = sum(length(of["work"]) for of in spans.values())
    busy_s = sum(map(length, busy.values()))
    return RoleTime(
        role=role,
        num_processes=len(spans),
        cpu_s=cpu_s,
        loading_s=busy_s - working_s,
        computing_s=working_s * (1 - waiting_share),
        waiting_s=working_s * waiting_share,
        idle_s=sum(end - each[0][0] for each in busy.values()) - busy_s,
    )


def _waiting_share(processes: Sequence[ProfiledProcess], role: str) -> float:
    samples = [each for process in processes for each in process.samples if each.role == role]
    seconds = sum(each.seconds for each in samples)
    return sum(each.waiting_s for each in samples) / seconds if seconds else 0.0
