"""Times of operators: equal to torch's own table, and files that hold what the slices hold."""

import gzip
import json
from collections import Counter

import pytest
import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from multicsr.execution.profiling import TraceRecord
from multicsr.tools.profile.operators import OperatorTimes, merge_traces, self_times
from multicsr.tools.profile.records import ProfiledProcess


@pytest.fixture
def trace(tmp_path):
    """A profile of some operators, and the file of it."""
    layer, vectors = torch.nn.Linear(8, 8), torch.ones(4, 8)
    with torch_profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(5):
            torch.nn.functional.gelu(layer(vectors)).sum().backward()
    path = tmp_path / "1-0000.json"
    recorded.export_chrome_trace(str(path))
    return recorded, path


def test_self_times_equal_the_table_of_torch(trace):
    recorded, path = trace
    times = OperatorTimes()
    times.add(json.loads(path.read_text())["traceEvents"])
    table = {each.key: each for each in recorded.key_averages() if each.key in times.cpu}
    assert {"aten::addmm", "aten::gelu", "aten::sum"} <= set(times.cpu) <= set(table)
    assert times.cpu["aten::addmm"].calls == table["aten::addmm"].count == 5
    for name, operator in times.cpu.items():
        assert operator.self_s * 1e6 == pytest.approx(table[name].self_cpu_time_total, abs=0.1)


def test_contained_events_are_taken_off_their_container_alone():
    spans = [("a", 1, 0, 10), ("b", 1, 0, 4), ("c", 1, 1, 2), ("d", 1, 5, 5), ("e", 2, 2, 3), ("f", 1, 10, 1)]
    events = [{"name": name, "tid": tid, "ts": ts, "dur": dur} for name, tid, ts, dur in spans]
    found = {event["name"]: left for event, left in self_times(events)}
    assert found == {"a": 1, "b": 2, "c": 2, "d": 5, "e": 3, "f": 1}


def test_merged_trace_holds_all_events_at_the_time_of_the_day(trace, tmp_path):
    _, path = trace
    slices = [TraceRecord(role="generate actor", name=path.name, seconds=0.5)] * 2
    out = tmp_path / "out"
    out.mkdir()
    times = merge_traces([ProfiledProcess(7, (), (), slices)], tmp_path, out)
    [file] = out.iterdir()
    assert file.name == "trace-generate-actor-7.json.gz"
    with gzip.open(file, "rt") as stream:
        merged = json.load(stream)["traceEvents"]
    whole = json.loads(path.read_text())
    assert Counter(event["name"] for event in merged) == Counter(
        event["name"] for event in whole["traceEvents"] * 2
    )
    first, moved = whole["traceEvents"][0], merged[0]
    assert moved["ts"] == pytest.approx(first["ts"] + whole["baseTimeNanoseconds"] / 1000)
    assert times.traced_s == 1.0
    assert times.cpu["aten::addmm"].calls == 10
    assert times.busy_s == pytest.approx(sum(each.self_s for each in times.cpu.values()), abs=1e-5)
