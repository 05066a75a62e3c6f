"""Recording of a process: functions, operators, spans of time; nothing of it without the order to record."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from multicsr.execution import profiling, sampling, torch_trace
from multicsr.execution.profiling import (
    VARIABLE,
    ActivityRecord,
    RecordingRequest,
    finish_recording,
    loading,
    record_of,
    working,
)
from multicsr.execution.sampling import FunctionSampler
from multicsr.execution.torch_trace import OperatorTrace


def compute(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


def sleep(seconds: float) -> None:
    time.sleep(seconds)


@pytest.fixture
def ours(monkeypatch):
    """Functions of this module count as functions of the package."""
    monkeypatch.setattr(sampling, "_PACKAGE", str(Path(__file__).parent))


@pytest.fixture
def ordered(tmp_path, monkeypatch):
    """An order to record in the environment; the folder of the records."""
    request = RecordingRequest(folder=str(tmp_path), seconds=20)
    monkeypatch.setenv(VARIABLE, request.model_dump_json())
    yield tmp_path
    finish_recording()


def records(folder: Path):
    return [record_of.validate_json(line) for line in (folder / f"{os.getpid()}.jsonl").open("rb")]


def test_without_order_nothing_is_recorded(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    threads = threading.active_count()
    with loading("actor"), working("actor"):
        assert threading.active_count() == threads
    assert profiling._current is None
    assert list(tmp_path.iterdir()) == []


def test_spans_are_recorded_with_their_role(ordered):
    started = time.time()
    with loading("actor"):
        pass

    def work():
        with working("actor"):
            compute(0.05)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    spans = [each for each in records(ordered) if isinstance(each, ActivityRecord)]
    assert [each.what for each in spans if each.what != "profiler"] == ["load", "work"]
    load, work = (each for each in spans if each.what != "profiler")
    assert {load.role, work.role} == {"actor"}
    assert started <= load.start_s <= load.end_s <= work.start_s
    assert work.cpu_s - load.cpu_s >= 0.05


def test_samples_divide_work_into_computing_and_waiting(ours):
    sampler = FunctionSampler(60, lambda: True)
    compute(0.6)
    sleep(0.6)
    sampler.stop()
    samples = sampler.take()
    assert max(samples.computed, key=samples.computed.__getitem__) == "test_profiling.compute"
    assert 0.3 <= samples.computed["test_profiling.compute"] <= 0.7
    assert samples.waited["test_profiling.sleep"] >= 0.2
    assert sum(samples.waited.values()) == pytest.approx(samples.waiting_s)
    assert samples.waiting_s <= samples.seconds
    assert sampler.take().seconds == 0


def test_sampler_ends_after_its_seconds_of_work(ours):
    sampler = FunctionSampler(0.1, lambda: True)
    sampler._thread.join(20)
    assert not sampler._thread.is_alive()
    idle = FunctionSampler(0.1, lambda: False)
    sleep(0.2)
    assert idle._thread.is_alive()
    idle.stop()
    assert idle.take().seconds == 0


def test_time_is_counted_for_the_function_of_the_package_and_what_it_calls(ours):
    sampler = FunctionSampler(60, lambda: True)
    end = time.thread_time() + 0.3
    while time.thread_time() < end:
        json.dumps([*range(50)], indent=1)  # with an indent it is Python
    sampler.stop()
    here = "test_profiling.test_time_is_counted_for_the_function_of_the_package_and_what_it_calls"
    computed = sampler.take().computed
    assert sum(computed.values()) >= 0.2
    assert sum(seconds for name, seconds in computed.items() if name.startswith(f"{here} > encoder.")) > 0


def trace(prefix: Path, seconds: float) -> list[tuple[str, float]]:
    """Trace a layer in another thread than the one that starts the profiler."""
    import torch

    slices, layer, vectors = [], torch.nn.Linear(16, 16), torch.ones(4, 16)
    traced = OperatorTrace(prefix, seconds, lambda name, covered: slices.append((name, covered)))

    def compute_until_it_ends():
        end = time.monotonic() + 30
        with traced.here():
            while traced._hook.id in torch.nn.modules.module._global_forward_pre_hooks:
                assert time.monotonic() < end
                layer(vectors)

    threads = [threading.Thread(target=compute_until_it_ends) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    traced.stop()
    return slices


def test_operators_of_other_threads_are_traced(tmp_path):
    slices = trace(tmp_path / "a", 0.6)
    assert sum(covered for _, covered in slices) >= 0.6
    for name, _ in slices:
        events = json.loads((tmp_path / name).read_text())["traceEvents"]
        assert "aten::addmm" in {event["name"] for event in events if event.get("cat") == "cpu_op"}


def test_slice_ends_with_its_block_and_other_threads_are_left_alone(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch_trace, "_MOST_BYTES", 2**40)  # no pause
    slices, layer, vectors = [], torch.nn.Linear(16, 16), torch.ones(4, 16)
    traced = OperatorTrace(tmp_path / "a", 60, lambda name, covered: slices.append(name))

    def in_block():
        with traced.here():
            layer(vectors)

    for work, expected in ((lambda: layer(vectors), 0), (in_block, 1), (in_block, 2)):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert len(slices) == expected
    traced.stop()
    in_block()
    assert len(slices) == 2


def test_trace_is_bounded_in_size(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_trace, "_SLICE_S", 0.02)
    monkeypatch.setattr(torch_trace, "_MOST_BYTES", 400_000)
    slices = trace(tmp_path / "a", 1.0)
    sizes = [(tmp_path / name).stat().st_size for name, _ in slices]
    assert sum(sizes[:-1]) < 400_000
    assert sum(covered for _, covered in slices) < 1.0
