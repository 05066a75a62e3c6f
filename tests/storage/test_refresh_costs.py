"""Costs that no crash loses or doubles, and refresh runs whose record is completed after one."""

import pytest

from multicsr.config import Config
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
    assert booked(place) == Cost()
    book(place, Cost(rows_written=3, tokens=10))
    book(place, Cost(rows_written=4, rows_scored=7, gpu_seconds=1.5))
    expected = Cost(rows_written=7, rows_scored=7, tokens=10, gpu_seconds=1.5)
    assert booked(place) == expected
    place.write_text("refresh/costs/.DS_Store", "foreign")
    assert booked(place) == expected
    refresh_costs.forget(place)
    assert booked(place) == Cost()


def test_a_cost_that_grows_is_one_cost(place):
    book(place, Cost(gpu_seconds=1.0), "training")
    book(place, Cost(gpu_seconds=2.0), "training")
    assert booked(place) == Cost(gpu_seconds=2.0)


def test_gpus_are_booked_when_the_work_fails_too(place):
    with pytest.raises(ValueError, match="no"), book_gpus(place, gpus=1e6):
        raise ValueError("no")
    assert booked(place).gpu_seconds > 0
    refresh_costs.forget(place)
    with book_gpus(place, gpus=0):
        pass
    assert place.names("refresh/costs") == []


def test_run_that_died_before_it_published_leaves_its_cost_and_no_record(place):
    book(place, Cost(rows_written=3))
    begin_closing(place, refresh_run(1), ARTIFACTS)
    complete(place)
    assert refresh_runs(place) == []
    assert booked(place) == Cost(rows_written=3)
    assert not place.exists("refresh/pending.json")


@pytest.mark.parametrize("is_appended", [False, True], ids=["before", "after"])
def test_run_that_died_around_its_record_has_one(place, is_appended, monkeypatch):
    """It died after it published: before its record was there, or before the costs were deleted."""
    book(place, Cost(rows_written=3))
    begin_closing(place, refresh_run(1), ARTIFACTS)
    publish(place, "curated", manifest("curate"))
    if is_appended:
        with monkeypatch.context() as broken:
            broken.setattr(refresh_costs, "forget", _die)
            with pytest.raises(KeyboardInterrupt):
                complete(place)
        assert len(refresh_runs(place)) == 1
    complete(place)
    assert refresh_runs(place) == [refresh_run(1)]
    assert booked(place) == Cost()
    complete(place)
    assert refresh_runs(place) == [refresh_run(1)], "nothing is left to complete"


def _die(store):
    raise KeyboardInterrupt


def test_next_job_of_any_kind_completes_the_record(tmp_path):
    config = Config.model_validate(
        {"name": "t", "store": str(tmp_path / "store"), "input": {"paths": ["x"]}, "lease_s": 1}
    )
    store = Store.of(config)
    begin_closing(store, refresh_run(1), ARTIFACTS)
    publish(store, "curated", manifest("curate"))
    with open_transaction(config, "curate", SilentProgress()):
        assert refresh_runs(store) == [refresh_run(1)]
