"""Shards through Ray Data: every row accounted for, resume, errors that are one line."""

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from multicsr.errors import ConfigError, RunError
from multicsr.execution.pool import Pool
from multicsr.execution.stage_runner import Stage, StageOutput, run_stage
from multicsr.observability.progress import SilentProgress
from multicsr.rows import SENTENCE, rejects, row_id
from multicsr.storage.manifest import Manifest, iter_rejects, iter_tables, read_manifest, rows_digest
from multicsr.storage.store import Store

on_ray = pytest.mark.usefixtures("ray_cluster")
"""For tests of what Ray does; the others are of what the runner does around it."""
here = pytest.mark.usefixtures("without_ray")


class Count(SilentProgress):
    """Remembers what it was told."""

    def __init__(self):
        self.done, self.summary = 0, ""

    def advance(self, amount=1):
        self.done += amount

    skip = advance

    def finish(self, summary):
        self.summary = summary


def sentences(number):
    rows = [
        {"row_id": row_id(f"sentence {i}", "en"), "text": f"sentence {i}", "source": "a", "position": i}
        for i in range(number)
    ]
    return pa.Table.from_pylist([{**row, "language": "en"} for row in rows], schema=SENTENCE)


def make_artifact(store, number, rows_per_shard):
    table = sentences(number)
    files = [
        store.write_table(f"sentences/x/rows/part-{start:05d}.parquet", table.slice(start, rows_per_shard))
        for start in range(0, number, rows_per_shard)
    ]
    manifest = Manifest(
        stage="ingest",
        run="t",
        fingerprint="x",
        code_version="0",
        settings={},
        created="",
        seconds=0,
        rows_in=number,
        rows_out=number,
        rejected={},
        rows_digest=rows_digest(table["row_id"]),
        files=files,
        reject_files=[],
        counters={},
    )
    return manifest


def split(table, keep):
    """Rows where `keep`, the others as rejects."""
    rejected = table.filter(pa.array([not k for k in keep]))
    extra = [pa.array(["odd"] * rejected.num_rows, pa.string()), pa.nulls(rejected.num_rows, pa.string())]
    return table.filter(pa.array(keep)), pa.table([*rejected.columns, *extra], schema=rejects(SENTENCE))


class Sieve:
    """Rejects odd positions; leaves a file in `log` for each shard it sees and for each time it is made."""

    def __init__(self, log, dies_at=None):
        self.log, self.dies_at = Path(log), dies_at
        (self.log / f"made-{os.getpid()}-{id(self)}").touch()

    def __call__(self, table):
        first = table["position"][0].as_py()
        (self.log / f"shard-{first}-{len(list(self.log.glob(f'shard-{first}-*')))}").touch()
        if first == self.dies_at:
            raise RunError("the model is gone")
        keep = [position % 2 == 0 for position in table["position"].to_pylist()]
        return StageOutput(*split(table, keep), {"tokens": float(table.num_rows)})


def stage_of(make, actors=None, **changes):
    stage = Stage(
        name="sieve",
        artifact="scored",
        reads=SENTENCE,
        writes=SENTENCE,
        make=make,
        pool=Pool(actors=actors),
    )
    return replace(stage, **changes)


def run(stage, store, source, settings=None, progress=None):
    return run_stage(
        stage, store, source, run="t", settings=settings or {}, progress=progress or SilentProgress()
    )


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@on_ray
def test_counts_rows_and_rejects(store, log):
    progress = Count()
    source = make_artifact(store, 90, 20)
    manifest = run(stage_of(lambda: Sieve(log), actors=2), store, source, progress=progress)
    assert (manifest.rows_in, manifest.rows_out, manifest.rejected) == (90, 45, {"odd": 45})
    assert manifest.counters["tokens"] == 90
    assert progress.done == 90
    assert progress.summary == "45 kept, 45 rejected"
    assert read_manifest(store, "scored", manifest.fingerprint) == manifest
    rows = pa.concat_tables(iter_tables(store, manifest))
    rejected = pa.concat_tables(iter_rejects(store, manifest))
    assert sorted(rows["position"].to_pylist() + rejected["position"].to_pylist()) == list(range(90))
    assert manifest.rows_digest == rows_digest(rows["row_id"])
    assert 1 <= len(list(log.glob("made-*"))) <= 2, "made once in each actor"


@on_ray
def test_number_of_workers_and_shards_does_not_matter(store, log, tmp_path):
    results = []
    ways = [(None, 90, 1), (3, 20, 1), (None, 7, 5)]
    for i, (actors, rows_per_shard, shards_per_task) in enumerate(ways):
        store = Store.open(str(tmp_path / str(i)))
        pool = Pool(actors=actors, cpus=0.5, shards_per_task=shards_per_task)
        manifest = run(
            stage_of(lambda: Sieve(log), pool=pool), store, make_artifact(store, 90, rows_per_shard)
        )
        rows = pa.concat_tables(iter_tables(store, manifest)).sort_by("row_id")
        results.append((rows.to_pylist(), manifest.rows_digest, manifest.rejected))
    assert all(result == results[0] for result in results[1:])


@on_ray
def test_resume_runs_only_what_is_missing(store, log):
    source = make_artifact(store, 100, 10)
    with pytest.raises(RunError, match="the model is gone"):
        run(stage_of(lambda: Sieve(log, dies_at=70), actors=1), store, source)
    assert not any(name.endswith("manifest.json") for name in store.names("scored"))
    done = {name for name in store.names("scored") if "/done/" in name}
    assert done
    before = {path.name for path in log.glob("shard-*")}

    manifest = run(stage_of(lambda: Sieve(log), actors=1), store, source)
    assert (manifest.rows_in, manifest.rows_out) == (100, 50)
    assert manifest.counters["tokens"] == 100, "the counters of the first run are kept"
    again = {path.name for path in log.glob("shard-*")} - before
    assert len(again) == 10 - len(done)

    progress = Count()
    assert run(stage_of(lambda: Sieve(log)), store, source, progress=progress) == manifest
    assert {path.name for path in log.glob("shard-*")} == before | again, "a complete room is reused"
    assert progress.summary.endswith("reused")


@here
def test_a_lost_file_is_made_again(store, log):
    source = make_artifact(store, 30, 10)
    manifest = run(stage_of(lambda: Sieve(log)), store, source)
    store.delete(manifest.files[1].path)
    again = run(stage_of(lambda: Sieve(log)), store, source)
    assert again.files == manifest.files
    assert len(list(log.glob("shard-*"))) == 4


@here
def test_other_settings_are_other_work(store, log):
    source = make_artifact(store, 20, 10)
    first = run(stage_of(lambda: Sieve(log)), store, source, {"omega": 0.3})
    second = run(stage_of(lambda: Sieve(log)), store, source, {"omega": 0.2})
    assert first.fingerprint != second.fingerprint
    assert len(list(log.glob("shard-*"))) == 4
    assert run(stage_of(lambda: Sieve(log)), store, source, {"omega": 0.3}).files == first.files
    assert len(list(log.glob("shard-*"))) == 4, "rows made under the first settings are still there"


@here
def test_a_run_that_fails_leaves_what_was_published(store, log):
    source = make_artifact(store, 30, 10)
    first = run(stage_of(lambda: Sieve(log)), store, source, {"omega": 0.3})
    with pytest.raises(RunError, match="the model is gone"):
        run(stage_of(lambda: Sieve(log, dies_at=20)), store, source, {"omega": 0.2})
    assert read_manifest(store, "scored", first.fingerprint) == first
    assert sum(table.num_rows for table in iter_tables(store, first)) == 15


def loses(table):
    return StageOutput(table.slice(1), rejects(SENTENCE).empty_table())


def renames(table):
    other = sentences(1000).slice(900, table.num_rows)
    return StageOutput(other, rejects(SENTENCE).empty_table())


def mistypes(table):
    return StageOutput(table.drop_columns(["source"]), rejects(SENTENCE).empty_table())


@here
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (loses, r"sieve: 10 rows of shard part-\d+ went in, 9 came out and 0 were rejected"),
        (renames, "other row ids"),
        (mistypes, "other columns"),
    ],
)
def test_a_stage_that_breaks_its_contract_is_stopped(store, broken, message):
    with pytest.raises(RunError, match=message):
        run(stage_of(lambda: broken), store, make_artifact(store, 30, 10))
    assert not any(name.endswith("manifest.json") for name in store.names("scored"))


@here
def test_rows_missing_from_the_artifact_before_are_noticed(store, log):
    source = make_artifact(store, 30, 10)
    short = source.model_copy(update={"files": source.files[:2]})
    with pytest.raises(RunError, match="30 rows went in, 10 came out and 10 were rejected"):
        run(stage_of(lambda: Sieve(log)), store, short)


@here
def test_stops_past_max_rejected(store, log):
    source = make_artifact(store, 2000, 100)
    with pytest.raises(RunError, match=r"more than sieve\.max_rejected = 0\.2 allows; mostly odd"):
        run(stage_of(lambda: Sieve(log), max_rejected=0.2), store, source)
    assert not any(name.endswith("manifest.json") for name in store.names("scored"))
    assert len(list(log.glob("shard-*"))) < 20, "it did not wait for the end"


@on_ray
def test_an_expected_error_of_a_worker_is_that_error(store):
    def make():
        raise ConfigError("llm.model: no directory /nowhere")

    with pytest.raises(ConfigError) as caught:
        run(stage_of(make, actors=2), store, make_artifact(store, 30, 10))
    assert str(caught.value) == "llm.model: no directory /nowhere"


@on_ray
def test_an_unexpected_error_of_a_worker_is_one_line(store):
    def fails(table):
        raise KeyError("no such thing\nand more")

    with pytest.raises(RunError) as caught:
        run(stage_of(lambda: fails), store, make_artifact(store, 30, 10))
    assert str(caught.value).startswith("sieve: KeyError: ")
    assert "\n" not in str(caught.value)


@on_ray
def test_a_worker_that_always_dies_ends_the_run(store):
    def dies(table):
        os._exit(1)

    with pytest.raises(RunError, match=r"sieve: .*; the shards done so far are kept"):
        run(stage_of(lambda: dies, actors=1), store, make_artifact(store, 20, 10))


@on_ray
def test_a_worker_that_dies_once_is_replaced(store, log):
    def dies_once(table):
        mark = log / "died"
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return Sieve(log)(table)

    manifest = run(stage_of(lambda: dies_once, actors=1), store, make_artifact(store, 30, 10))
    assert (manifest.rows_in, manifest.rows_out) == (30, 15)
