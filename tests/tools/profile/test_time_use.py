"""Divisions of wall time against counting tenths of a second one by one."""

import random

import pytest

from multicsr.execution.profiling import ActivityRecord, SamplesRecord
from multicsr.tools.profile.records import ProfiledProcess
from multicsr.tools.profile.time_use import (
    AFTER,
    BEFORE,
    BETWEEN,
    LOAD,
    PROFILER,
    RAY,
    WORK,
    length,
    role_times,
    union,
    wall_parts,
)

PRIORITY = (("work", WORK), ("load", LOAD), ("ray", RAY), ("profiler", PROFILER))


def activity(what, start, end, role="actor", cpu_s=0.0):
    return ActivityRecord(what=what, role=role, start_s=start, end_s=end, cpu_s=cpu_s, children_cpu_s=0.0)


def process(*activities, pid=1, samples=()):
    return ProfiledProcess(pid, activities, samples, ())


def counted_wall_parts(processes, steps):
    """Look at every second of the run for itself."""
    spans = [each for one in processes for each in one.activities]
    busy = [each for each in spans if each.what in ("work", "load")]
    first, last = min(each.start_s for each in busy), max(each.end_s for each in busy)
    parts = {}
    for second in range(steps):
        whats = {each.what for each in spans if each.start_s <= second < each.end_s}
        default = BEFORE if second < first else AFTER if second >= last else BETWEEN
        name = next((name for what, name in PRIORITY if what in whats), default)
        parts[name] = parts.get(name, 0) + 1
    return parts


@pytest.mark.parametrize("seed", range(20))
def test_wall_parts_equal_those_counted_second_by_second(seed):
    draw = random.Random(seed)
    processes = []
    for pid in range(draw.randint(1, 3)):
        starts = [draw.randint(5, 90) for _ in range(draw.randint(1, 6))]
        kinds = ["work", *draw.choices(["work", "load", "ray", "profiler"], k=len(starts) - 1)]
        spans = [activity(what, at, at + draw.randint(1, 9)) for what, at in zip(kinds, starts, strict=True)]
        processes.append(process(*spans, pid=pid))
    parts = wall_parts(processes, (0.0, 100.0))
    assert parts == counted_wall_parts(processes, 100)
    assert sum(parts.values()) == 100


def test_command_without_workers_is_one_part():
    parts = wall_parts([process(activity("ray", 1, 3, "driver"))], (0.0, 10.0))
    assert parts == {RAY: 2, BETWEEN: 8}


def test_union_of_spans():
    assert union([(3, 4), (0, 1), (1, 2), (3.5, 3.6)]) == [(0, 2), (3, 4)]
    assert length([(0, 1), (0.5, 2)]) == 2


def test_shares_of_a_role_add_up():
    waits = SamplesRecord(role="actor", seconds=4, waiting_s=1, computed={"a": 3.0}, waited={"b": 1.0})
    # One process loads 2 s, works 4 s on two overlapping items and is idle 1 s; the other works to the end.
    first = process(
        activity("load", 0, 2),
        activity("work", 2, 5),
        activity("work", 3, 6, cpu_s=3.5),
        pid=1,
        samples=[waits],
    )
    second = process(activity("work", 1, 7, cpu_s=6.0), pid=2)
    [time] = role_times([first, second])
    assert (time.loading_s, time.computing_s, time.waiting_s, time.idle_s) == (2, 7.5, 2.5, 1)
    assert time.cpu_s == 9.5
    assert sum(time.shares()) == pytest.approx(1)


def test_cpu_time_of_a_process_counts_for_one_role():
    both = process(activity("work", 0, 1, "read"), activity("work", 1, 5, "ingest", cpu_s=4.0))
    assert {time.role: time.cpu_s for time in role_times([both])} == {"ingest": 4.0, "read": 0.0}
