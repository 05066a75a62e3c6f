"""The queue before an engine: what runs together, in which order, and what becomes of failures."""

import threading
from concurrent.futures import CancelledError, wait

import pytest

from multicsr.serve.scheduler import Scheduler


class Recorder:
    """Work whose first batch waits until it may go on."""

    def __init__(self):
        self.batches, self.may_go, self.has_begun = [], threading.Event(), threading.Event()

    def run(self, items):
        self.batches.append(list(items))
        self.has_begun.set()
        assert self.may_go.wait(10)
        if "bad" in items:
            raise RuntimeError("no")
        return [item.upper() for item in items]


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def scheduler():
    scheduler = Scheduler(threads=1, size=3)
    yield scheduler
    scheduler.close()


def submit_while_one_runs(scheduler, recorder, *works):
    """Submit a first piece, and the others once it runs."""
    first = scheduler.submit("first", "first", recorder.run)
    assert recorder.has_begun.wait(10)
    return first, [scheduler.submit(kind, item, recorder.run) for kind, item in works]


def test_waiting_work_of_one_kind_runs_together_and_the_oldest_comes_first(scheduler, recorder):
    works = [("x", "a"), ("y", "b"), ("x", "c"), ("x", "d"), ("x", "e"), ("y", "f")]
    first, others = submit_while_one_runs(scheduler, recorder, *works)
    recorder.may_go.set()
    assert [future.result(10) for future in [first, *others]] == ["FIRST", "A", "B", "C", "D", "E", "F"]
    assert recorder.batches == [["first"], ["a", "c", "d"], ["b", "f"], ["e"]]


def test_cancelled_work_never_runs(scheduler, recorder):
    _, [a, b] = submit_while_one_runs(scheduler, recorder, ("x", "a"), ("x", "b"))
    assert a.cancel()
    recorder.may_go.set()
    assert b.result(10) == "B"
    assert recorder.batches == [["first"], ["b"]]


def test_failure_reaches_its_batch_alone(scheduler, recorder):
    first, [bad, beside, other] = submit_while_one_runs(
        scheduler, recorder, ("x", "bad"), ("x", "a"), ("y", "b")
    )
    recorder.may_go.set()
    wait([bad, beside], 10)
    assert [str(bad.exception(10)), str(beside.exception(10))] == ["no", "no"]
    assert [first.result(10), other.result(10)] == ["FIRST", "B"]


def test_closing_finishes_what_runs_and_cancels_what_waits(recorder):
    scheduler = Scheduler(threads=1, size=1)
    first, [waiting] = submit_while_one_runs(scheduler, recorder, ("x", "a"))
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(10)
    recorder.may_go.set()
    closing.join(10)
    assert first.result(0) == "FIRST"
    assert not closing.is_alive()


def test_threads_run_at_the_same_time():
    scheduler, together = Scheduler(threads=2, size=1), threading.Barrier(2, timeout=10)
    futures = [scheduler.submit("x", item, lambda items: (together.wait(), items)[1]) for item in "ab"]
    assert [future.result(10) for future in futures] == ["a", "b"]
    scheduler.close()
