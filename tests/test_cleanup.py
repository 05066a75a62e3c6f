"""What gc finds: everything that no kept version needs, and nothing that one does."""

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from multicsr import pipeline
from multicsr.audit import audit
from multicsr.cleanup import clean_up
from multicsr.config import Config
from multicsr.draft import roll_back
from multicsr.errors import RunError
from multicsr.progress import SilentProgress
from multicsr.store import Store
from multicsr.versions import current, rooms_of, versions

pytestmark = pytest.mark.usefixtures("ray_cluster")
LINES = [f"This is sentence number {i} out of many." for i in range(120)]


@pytest.fixture
def config(tmp_path):
    def make(lines) -> Config:
        (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
        tree = {"name": "t", "store": str(tmp_path / "store"), "input": {"paths": [str(tmp_path / "in.txt")]}}
        tree |= {"llm": {"engine": "fake"}, "generate": {"rows_per_shard": 50}, "lease_s": 2}
        return Config.model_validate(tree)

    return make


def age(store: Path) -> None:
    """Make every file look a month old."""
    then = (datetime.now() - timedelta(days=30)).timestamp()
    for path in store.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def gc(config, keep=1, days=7.0, delete=True):
    return clean_up(config, keep, days * 86400, SilentProgress(), delete=delete)


def test_old_versions_go_and_the_kept_ones_stay_whole(config, tmp_path):
    for lines in (LINES[:100], LINES[:110], LINES[10:110]):
        pipeline.run(last := config(lines), SilentProgress(), until="curate")
    store = Store.of(last)
    numbers = [version.number for version in versions(store)]
    assert len(numbers) == 5, "three for the first run, one for each of the others"
    assert sum(gc(last, keep=2).files.values()) == 0, "everything is young"
    age(tmp_path / "store")
    before = set(store.names(""))
    found = gc(last, keep=2, delete=False)
    assert {name.split("/")[0] for name in set(store.names("")) ^ before} == {"log", "leases"}
    assert min(found.files[folder] for folder in ("sentences", "scored", "curated", "ledger", "records")) > 0
    assert gc(last, keep=2).files == found.files
    assert sum(gc(last, keep=2, delete=False).files.values()) == 0
    for number in numbers[-2:]:
        assert audit(rooms_of(store, number)) == []
    with pytest.raises(RunError, match="cannot read"):
        rooms_of(store, numbers[0]).manifest("sentences")
    with pytest.raises(RunError, match="cannot read"):
        roll_back(last, numbers[0], SilentProgress())
    gc(last, keep=5)  # of which some are gone
    roll_back(last, numbers[-2], SilentProgress())
    assert audit(current(store)) == []
    pipeline.run(last, SilentProgress(), until="curate")
    assert audit(current(store)) == []


def test_what_a_killed_job_left_goes(config, tmp_path):
    pipeline.run(last := config(LINES[:60]), SilentProgress(), until="curate")
    for name in ("ledger/1/2/0-f-x.parquet", "scored/3/rows/part-000000.parquet", "training/4/checkpoint.pt"):
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert sum(gc(last).files.values()) == 0
    age(tmp_path / "store")
    found = gc(last)
    assert (found.files["scored"], found.files["training"]) == (1, 1)
    for name in ("ledger/1", "scored/3", "training"):
        assert not (tmp_path / "store" / name).exists()
    assert audit(current(Store.of(last))) == []


def test_foreign_files_are_not_looked_at(config, tmp_path):
    pipeline.run(last := config(LINES[:20]), SilentProgress(), until="ingest")
    (tmp_path / "store" / "notes.txt").write_text("mine")
    age(tmp_path / "store")
    gc(last)
    assert (tmp_path / "store" / "notes.txt").read_text() == "mine"
