"""What gc finds: everything that no kept version needs, and nothing that one does."""

import os
import time
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.stages.generate.llm_cache import CacheKey
from multicsr.storage.manifest import iter_tables, write_manifest
from multicsr.storage.store import Store
from multicsr.storage.transaction import roll_back
from multicsr.storage.versions import current, snapshot_of, versions
from multicsr.tools.audit import audit
from multicsr.tools.gc import clean_up
from tests.support.versions import manifest, publish

pytestmark = pytest.mark.usefixtures("without_ray")
LINES = [f"This is sentence number {i} out of many." for i in range(120)]


@pytest.fixture
def config(tmp_path):
    def make(lines, **tree) -> Config:
        (tmp_path / "in.txt").write_text("\n".join([*lines, "Short."]) + "\n")
        base = {"name": "t", "store": str(tmp_path / "store"), "input": {"paths": [str(tmp_path / "in.txt")]}}
        base |= {"llm": {"engine": "fake"}, "generate": {"rows_per_shard": 50}, "lease_s": 2}
        return Config.model_validate({**base, **tree})

    return make


def age(store: Path) -> None:
    """Make every file look a month old."""
    then = (datetime.now() - timedelta(days=30)).timestamp()
    for path in store.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def gc(config, keep=1, days=0.0, delete=True, **options):
    return clean_up(config, keep, days * 86400, SilentProgress(), delete=delete, **options)


def artifacts(found) -> dict[str, int]:
    """What was found, without the heartbeats of the jobs that looked."""
    return {folder: number for folder, number in found.files.items() if folder != "leases"}


def run(config: Config) -> Config:
    full_run.run(config, SilentProgress(), until="curate")
    return config


def rows_written(config: Config) -> float:
    run(config)
    return current(Store.of(config)).manifest("scored").counters["rows_written"]


def test_old_versions_go_and_the_kept_ones_stay_whole(config, tmp_path):
    for lines in (LINES[:100], LINES[:110], LINES[10:110]):
        last = run(config(lines))
    store = Store.of(last)
    numbers = [version.number for version in versions(store)]
    assert len(numbers) == 5, "three for the first run, one for each of the others"
    age(tmp_path / "store")
    before = set(store.names(""))
    found = gc(last, keep=2, delete=False)
    assert {name.split("/")[0] for name in set(store.names("")) ^ before} == {"log", "leases"}
    assert min(found.files[folder] for folder in ("sentences", "scored", "curated", "records")) > 0
    assert artifacts(gc(last, keep=2)) == artifacts(found)
    assert sum(artifacts(gc(last, keep=2, delete=False)).values()) == 0
    for number in numbers[-2:]:
        assert audit(snapshot_of(store, number)) == []
    with pytest.raises(RunError, match="cannot read"):
        snapshot_of(store, numbers[0]).manifest("sentences")
    with pytest.raises(RunError, match=r"files of version 1 are gone from .*: gc has deleted sentences/"):
        roll_back(last, numbers[0], SilentProgress())
    gc(last, keep=5)  # of which some are gone
    roll_back(last, numbers[-2], SilentProgress())
    assert audit(current(store)) == []
    run(config(LINES[5:110]))
    assert audit(current(store)) == []


def test_a_version_has_its_safety_age_from_when_it_stopped_being_current(config, tmp_path):
    """All files are a month old; the first version was current until now."""
    run(config(LINES[:40]))
    age(tmp_path / "store")
    last = run(config(LINES[:50]))
    age(tmp_path / "store")
    store = Store.of(last)
    assert sum(artifacts(gc(last, days=7)).values()) == 0
    for version in versions(store):
        assert audit(snapshot_of(store, version.number)) == []
    gc(last, days=0)
    with pytest.raises(RunError, match="cannot read"):
        snapshot_of(store, 3).manifest("scored")


def test_records_that_were_read_under_other_settings_go(config, tmp_path):
    """They may hold personal data that the new settings replace."""
    lines = [*LINES[:60], "Please write to joe@example.com about this."]
    run(config(lines))
    last = run(config(lines, ingest={"redact": ["email"]}))
    age(tmp_path / "store")

    def holders():
        root = tmp_path / "store"
        texts = {path: str(pq.read_table(path).to_pylist()) for path in root.rglob("*.parquet")}
        return {path.relative_to(root).parts[0] for path, text in texts.items() if "joe@" in text}

    assert "records" in holders()
    gc(last, unused_llm_output=True)
    assert holders() == set()
    assert audit(current(Store.of(last))) == []
    assert (tmp_path / "store" / "records").is_dir(), "what the new settings read stays"


def test_what_the_llm_wrote_for_sentences_that_no_kept_version_has_goes(config, tmp_path):
    """The LLM copies from sentences, and its settings are those of before."""
    lines = [f"Please write to joe{i}@example.com about matter {i}." for i in range(400)]
    run(config([*LINES, *lines]))
    last = run(config([*LINES, *lines], ingest={"redact": ["email"]}))
    root = tmp_path / "store"
    age(root)

    def rows_of_cache():
        tables = [pq.read_table(path) for path in (root / "llm_cache").rglob("*.parquet")]
        return [row for table in tables for row in table.to_pylist()]

    held = rows_of_cache()
    assert len(held) == 520 + 400, "each sentence once, and those with an address redacted too"
    assert any("@example" in str(row) for row in held)
    assert gc(last).files["llm_cache"] == 0, "nothing of it goes without being asked for"
    found = gc(last, unused_llm_output=True, delete=False)
    assert found.files["llm_cache"] > 0
    assert rows_of_cache() == held
    assert gc(last, unused_llm_output=True).files["llm_cache"] == found.files["llm_cache"]
    store = Store.of(last)
    kept = {
        row_id
        for table in iter_tables(store, current(store).manifest("sentences"), ["row_id"])
        for row_id in table["row_id"].to_pylist()
    }
    assert {row["row_id"] for row in rows_of_cache()} == kept
    assert "@example" not in str(rows_of_cache())
    assert audit(current(store)) == []
    changed = config([*LINES, *lines, "One more sentence is here."], ingest={"redact": ["email"]})
    assert rows_written(changed) == 1


def test_gc_costs_no_row_of_the_llm(config):
    """The corpus grows and is rolled back; gc; one sentence more."""
    run(config(LINES[:60]))
    first = versions(Store.of(config(LINES[:60])))[-1].number
    grown = run(config(LINES[:100]))
    roll_back(grown, first, SilentProgress())
    found = gc(grown)
    assert found.files["llm_cache"] == 0
    assert rows_written(config(LINES[:101])) == 1
    assert rows_written(config(LINES[:60], generate={"omega": 0.2})) == 60
    gc(grown)
    assert rows_written(config(LINES[:102])) == 1, "it was written for other settings of another version"


def test_what_a_dead_job_was_paid_for_stays(config, tmp_path):
    """Its rows are in the LLM cache and in no version; another job publishes meanwhile."""
    whole = run(config(LINES[:60]))
    store = Store.of(whole)
    store.delete(current(store).folder("scored"))
    store.files.delete([name for name in store.names("log")])
    other = config(LINES[60:80], generate={"omega": 0.2})
    run(other)
    age(tmp_path / "store")
    gc(other)
    assert rows_written(config(LINES[:61])) == 1


def test_unused_llm_output_goes_when_it_is_asked_for(config):
    first = run(config(LINES[:20]))
    second = run(config(LINES[:20], generate={"omega": 0.2}))
    rescored = run(config(LINES[:20], generate={"omega": 0.2}, score={"method": "llm_stated"}))
    store = Store.of(first)
    cache_keys = [CacheKey.of(snapshot_of(store, n).manifest("scored").settings) for n in (3, 4, 5)]
    assert gc(rescored, keep=2).files["llm_cache"] == 0
    assert gc(rescored, keep=2, unused_llm_output=True).files["llm_cache"] == 1
    assert [bool(store.names(cache_key.folder)) for cache_key in cache_keys] == [False, True, True]
    assert rows_written(config(LINES[:20])) == 20
    again = CacheKey.of(current(store).manifest("scored").settings)
    assert again == cache_keys[0]
    assert store.names(again.writable(store).folder) != [], "in a folder that no late delete reaches"
    assert store.names(again.folder) == []
    assert rows_written(config(LINES[:21])) == 1
    assert rows_written(config(LINES[:21], generate={"omega": 0.2})) == 1
    gc(second, keep=1, unused_llm_output=True)
    assert rows_written(config(LINES[:22], generate={"omega": 0.2})) == 1


def test_hypotheses_without_scores_stay_as_long_as_their_cause_is_used(config, tmp_path):
    """The engine failed between writing and scoring; they are paid for."""
    last = run(config(LINES[:20]))
    store = Store.of(last)
    used = CacheKey.of(current(store).manifest("scored").settings).unscored
    names = [f"{cache_key.folder}/0-f/x.parquet" for cache_key in (used, CacheKey("0" * 16, "s").unscored)]
    for name in names:
        store.write_text(name, "x")
    age(tmp_path / "store")
    gc(last, unused_llm_output=True)
    assert [store.exists(name) for name in names] == [True, False]


def test_what_is_made_again_after_gc_took_it_has_another_name_and_the_same_content(config):
    first = run(config(LINES[:20]))
    store = Store.of(first)
    before = current(store)
    rows = before.manifest("curated").rows_digest
    last = run(config(LINES[:40]))
    gc(last)
    run(config(LINES[:20]))
    again = current(store)
    assert again.manifest("curated").rows_digest == rows
    for artifact in ("scored", "curated"):
        assert again.fingerprints[artifact] == f"{before.fingerprints[artifact]}-2"
    assert audit(again) == []
    gc(first)
    assert audit(again) == []


def test_the_triplets_of_a_kept_model_stay(config):
    """The model of the first version is the current one still; its triplets are not."""
    first = run(config(LINES[:20]))
    store = Store.of(first)
    trained_on = current(store).manifest("curated")
    settings = {"input": f"{trained_on.fingerprint}:{trained_on.rows_digest}", "train": {}}
    publish(store, "model", manifest("train", fingerprint="0123", settings=settings))
    for lines in (LINES[:40], LINES[:60], LINES[:80]):
        last = run(config(lines))
        gc(last)
    assert current(store).manifest("model").settings == settings
    for entry in trained_on.files:
        assert store.read_verified(entry)
    scored = [name.split("/")[1] for name in store.names("scored") if name.endswith("manifest.json")]
    assert len(scored) == 1


def test_what_a_killed_job_left_goes(config, tmp_path):
    last = run(config(LINES[:60]))
    for name in ("llm_cache/1/2/3/0-f-x.parquet", "scored/3/rows/0.parquet", "training/4/checkpoint.pt"):
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert sum(gc(last, days=7).files.values()) == 0
    age(tmp_path / "store")
    found = gc(last, days=7)
    assert (found.files["scored"], found.files["training"], found.files["llm_cache"]) == (1, 1, 0)
    for name in ("scored/3", "training"):
        assert not (tmp_path / "store" / name).exists()
    assert gc(last, days=7, unused_llm_output=True).files["llm_cache"] == 1
    assert audit(current(Store.of(last))) == []


def test_what_a_killed_writer_left_of_a_file_goes_when_it_is_old(config, tmp_path):
    last = run(config(LINES[:20]))
    old, fresh = (tmp_path / f"store/log/x.json.{letter * 32}.tmp" for letter in "01")
    for path in (old, fresh):
        path.write_text("half of it")
    os.utime(old, (time.time() - 8 * 86400,) * 2)
    assert gc(last, days=7, delete=False).uploads == 1
    assert old.exists()
    assert gc(last, days=7).uploads == 1
    assert (old.exists(), fresh.exists()) == (False, True)


def test_what_a_training_left_goes_without_its_model(config):
    last = run(config(LINES[:20]))
    store = Store.of(last)
    settings = {"input": "0123456789abcdef:0", "train": {}}
    publish(store, "model", made := manifest("train", fingerprint="0123", settings=settings))
    store.write_text("training/0123/checkpoint.pt", "x")
    assert gc(last).files["training"] == 1
    assert store.names("training") == []
    assert current(store).manifest("model") == made
    roll_back(last, 3, SilentProgress())
    roll_back(last, 4, SilentProgress())
    assert current(store).manifest("model") == made


def test_probes_and_heartbeats_of_others_stay(config):
    """A job that tries whether the store knows conditions, and one that is about to take the lease."""
    last = run(config(LINES[:20]))
    store = Store.of(last)
    names = ["leases/probe-1", f"leases/{'0' * 32}.json"]
    for name in names:
        store.write_text(name, "x")
    assert gc(last).files["leases"] > 0
    assert {*names} <= {*store.names("leases")}
    for name in names:
        old_s = time.time() - 2 * 3600
        os.utime(store.directory / name, (old_s, old_s))
    gc(last)
    assert not {*names} & {*store.names("leases")}


def test_foreign_files_are_not_looked_at(config, tmp_path):
    full_run.run(last := config(LINES[:20]), SilentProgress(), until="ingest")
    names = [
        "notes.txt",
        "sentences/notes.txt",
        "llm_cache/notes.txt",
        "llm_cache/1/notes.txt",
        "scored/.x/notes.txt",
    ]
    for name in names:
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    age(tmp_path / "store")
    gc(last, unused_llm_output=True)
    run(last)
    for name in names:
        assert (tmp_path / "store" / name).read_text() == "mine"


def test_a_rollback_to_files_that_are_gone_is_rejected(config):
    run(config(LINES[:20]))
    last = run(config(LINES[:40]))
    store = Store.of(last)
    for artifact, kind in (("curated", "files"), ("scored", "files"), ("sentences", "reject_files")):
        gone = getattr(snapshot_of(store, 3).manifest(artifact), kind)[0].path
        store.files.delete([gone])
        with pytest.raises(RunError, match=rf"files of version 3 are gone from .*: {gone}"):
            roll_back(last, 3, SilentProgress())
    assert versions(store)[-1].number == 4


def test_a_file_of_another_size_is_no_reason_to_roll_back(config):
    run(config(LINES[:20]))
    last = run(config(LINES[:40]))
    store = Store.of(last)
    cut = snapshot_of(store, 3).manifest("scored").files[0].path
    store.write_bytes(cut, store.read_bytes(cut)[:-100])
    with pytest.raises(RunError, match=rf"files of version 3 are damaged in .*: {cut}"):
        roll_back(last, 3, SilentProgress())


def test_a_version_depends_on_nothing_that_is_read_again(config):
    last = run(config(LINES[:20]))
    store = Store.of(last)
    assert current(store).manifest("sentences").reject_files != []
    store.delete("records")
    assert audit(current(store)) == []
    write_manifest(store, "curated", manifest("curate", fingerprint="x"))
