"""When Ray starts, with how many CPUs, and when it ends; a real one is left out."""

from contextlib import contextmanager

import pytest
import ray

from multicsr import ray_start
from multicsr.ray_start import ray_at_need, start_ray


@pytest.fixture
def told(monkeypatch) -> list[str]:
    """Starts and ends, in order."""
    told: list[str] = []

    @contextmanager
    def connected(cpus: float):
        told.append(f"start with {cpus:g}")
        try:
            yield
        finally:
            told.append("end")

    monkeypatch.setattr(ray_start, "_connected", connected)
    monkeypatch.setattr(ray, "is_initialized", lambda: bool(told) and told[-1] != "end")
    return told


def test_what_needs_no_worker_starts_none(told):
    with ray_at_need(8):
        pass
    assert told == []


def test_all_share_one_until_the_end(told):
    with ray_at_need(8):
        with start_ray(2):
            assert told == ["start with 8"]
        with start_ray(16):
            pass
        assert told == ["start with 8"]
    assert told == ["start with 8", "end"]


def test_the_first_may_want_more_than_was_foreseen(told):
    with ray_at_need(1), start_ray(4):
        pass
    assert told == ["start with 4", "end"]


def test_alone_it_ends_with_its_block_and_after_an_error_too(told):
    with start_ray(3):
        assert told == ["start with 3"]
    assert told == ["start with 3", "end"]
    with pytest.raises(ZeroDivisionError), ray_at_need(1), start_ray():
        _ = 1 / 0
    with start_ray():
        pass
    assert told == ["start with 3", "end", "start with 1", "end", "start with 0", "end"]
