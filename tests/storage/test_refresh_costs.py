"""Costs that no crash loses or doubles, and refresh runs whose record is completed after one."""

from contextlib import suppress

import pytest

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.observability.progress import SilentProgress
from multicsr.storage import refresh_costs
from multicsr.storage.refresh_costs import Cost, begin_closing, book, book_gpus, booked, complete
from multicsr.storage.refresh_log import RefreshRun, refresh_runs
from multicsr.storage.store import Store
from multicsr.storage.transaction import open_transaction
from tests.support.versions import manifest, publish

ARTIFACTS = {"curated": "f"}


def refresh_run(version):
    return RefreshRun(
        started="2026-01-01T00:00:00+00:00",
        seconds=1,
        outcome="published",
        version=version,
        sentences=5,
        decision="promoted",
    )


def test_costs_add_up_until_they_are_taken(place):
    assert booked(place).cost == Cost()
    book(place, Cost(rows_written=3, tokens=10))
    book(place, Cost(rows_written=4, rows_scored=7, gpu_seconds=1.5))
    expected = Cost(rows_written=7, rows_scored=7, tokens=10, gpu_seconds=1.5)
    assert booked(place).cost == expected
    place.write_text("refresh/costs/.DS_Store", "foreign")
    assert booked(place).cost == expected
    place.files.delete(booked(place).names)
    assert booked(place) == (Cost(), [])


def test_a_cost_that_grows_is_one_cost(place):
    book(place, Cost(gpu_seconds=1.0), "training")
    book(place, Cost(gpu_seconds=2.0), "training")
    assert booked(place).cost == Cost(gpu_seconds=2.0)


def test_gpus_are_booked_when_the_work_fails_too(place):
    with pytest.raises(ValueError, match="no"), book_gpus(place, gpus=1e6):
        raise ValueError("no")
    assert booked(place).cost.gpu_seconds > 0
    place.files.delete(booked(place).names)
    with book_gpus(place, gpus=0):
        pass
    assert place.names("refresh/costs") == []


def test_run_that_died_before_it_published_leaves_its_cost_and_no_record(place):
    book(place, Cost(rows_written=3))
    begin_closing(place, refresh_run(1), ARTIFACTS, booked(place).names)
    complete(place)
    assert refresh_runs(place) == []
    assert booked(place).cost == Cost(rows_written=3)
    assert place.names("refresh/pending") == []


@pytest.mark.parametrize("is_appended", [False, True], ids=["before", "after"])
def test_run_that_died_around_its_record_has_one(place, is_appended, monkeypatch):
    """It died after it published: before its record was there, or before the costs were deleted."""
    book(place, Cost(rows_written=3))
    begin_closing(place, refresh_run(1), ARTIFACTS, booked(place).names)
    publish(place, "curated", manifest("curate"))
    if is_appended:
        with monkeypatch.context() as broken:
            broken.setattr(refresh_costs, "_forget", _die)
            with pytest.raises(KeyboardInterrupt):
                complete(place)
        assert len(refresh_runs(place)) == 1
    complete(place)
    assert refresh_runs(place) == [refresh_run(1)]
    assert booked(place).cost == Cost()
    complete(place)
    assert refresh_runs(place) == [refresh_run(1)], "nothing is left to complete"


def _die(store, costs):
    raise KeyboardInterrupt


def test_next_job_of_any_kind_completes_the_record(tmp_path):
    config = Config.model_validate(
        {"name": "t", "store": str(tmp_path / "store"), "input": {"paths": ["x"]}, "lease_s": 1}
    )
    store = Store.of(config)
    begin_closing(store, refresh_run(1), ARTIFACTS, [])
    publish(store, "curated", manifest("curate"))
    with open_transaction(config, "curate", SilentProgress()):
        assert refresh_runs(store) == [refresh_run(1)]


@pytest.mark.parametrize("call", ["names", "read", "delete"])
def test_run_that_sleeps_while_it_closes_takes_nothing_of_its_successor(place, call, monkeypatch):
    """It wakes before its next call of the storage, when a successor has booked, closed and published."""
    book(place, Cost(rows_written=3))
    publish(place, "curated", manifest("curate"))
    begin_closing(place, refresh_run(1), ARTIFACTS, booked(place).names)
    files = type(place.files)
    original = getattr(files, "infos" if call == "names" else call)
    slept = []

    def sleep_first(self, *arguments):
        if not slept:
            slept.append(True)
            complete(place)
            book(place, Cost(rows_written=5))
            begin_closing(place, refresh_run(2), ARTIFACTS, booked(place).names)
            book(place, Cost(rows_written=7))
        return original(self, *arguments)

    with monkeypatch.context() as sleeper:
        sleeper.setattr(files, original.__name__, sleep_first)
        with suppress(RunError):
            complete(place)
    complete(place)
    assert refresh_runs(place) == [refresh_run(1), refresh_run(2)]
    assert booked(place).cost == Cost(rows_written=7), "what nobody counted is still there"


def test_a_damaged_cost_is_left_out_with_a_warning(place, caplog):
    book(place, Cost(rows_written=3))
    book(place, Cost(rows_written=4), "damaged")
    place.write_bytes("refresh/costs/damaged.json", place.read_bytes("refresh/costs/damaged.json")[:-9])
    found = booked(place)
    assert found.cost == Cost(rows_written=3)
    assert "refresh/costs/damaged.json is damaged; its cost is left out of the refresh log" in caplog.text
    publish(place, "curated", manifest("curate"))
    begin_closing(place, refresh_run(1), ARTIFACTS, found.names)
    complete(place)
    assert place.names("refresh/costs") == []
