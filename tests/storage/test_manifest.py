"""Digests, fingerprints, and what a reader sees without a manifest."""

import random
import re

import pyarrow as pa
import pytest

from multicsr import __version__
from multicsr.errors import RunError
from multicsr.rows import row_id
from multicsr.storage.manifest import (
    Manifest,
    add_digests,
    code_version,
    fingerprint,
    iter_tables,
    rows_digest,
)
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from tests.support.versions import publish

IDS = [row_id(f"sentence {i}", "en") for i in range(1000)]


def digest(ids):
    return rows_digest(pa.chunked_array([pa.array(ids, pa.string())]))


def test_digest_is_the_sum_of_ids():
    assert int(digest(IDS), 16) == sum(int(each, 16) for each in IDS) % 2**128
    assert digest([]) == "0" * 32
    assert digest(["f" * 32, "f" * 32]) == f"{2 * (2**128 - 1) % 2**128:032x}"


def test_digest_depends_on_the_rows_alone():
    shuffled = random.Random(1).sample(IDS, len(IDS))
    assert digest(shuffled) == digest(IDS) == add_digests([digest(IDS[:300]), digest(IDS[300:])])
    assert digest(IDS[1:]) != digest(IDS)
    assert digest([*IDS[1:], IDS[1]]) != digest(IDS)


def test_fingerprint_changes_with_any_setting_and_not_with_their_order():
    one = fingerprint({"omega": 0.3, "llm": {"model": "x", "revision": None}})
    assert one == fingerprint({"llm": {"revision": None, "model": "x"}, "omega": 0.3})
    assert re.fullmatch(r"[0-9a-f]{16}", one)
    assert one != fingerprint({"omega": 0.2, "llm": {"model": "x", "revision": None}})
    assert one != fingerprint({"omega": 0.3, "llm": {"model": "x", "revision": "main"}})


def test_code_version_never_states_unknown():
    assert re.fullmatch(re.escape(__version__) + r"(\+g[0-9a-f]{12})?", code_version())


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path))


def make_manifest(**changes):
    values = {"stage": "generate", "run": "t", "fingerprint": "x", "code_version": "0", "settings": {}}
    values |= {"created": "", "seconds": 0, "rows_in": 0, "rows_out": 0, "rejected": {}, "rows_digest": ""}
    return Manifest(**{**values, "files": [], "reject_files": [], "counters": {}, **changes})


@pytest.mark.parametrize(
    ("artifact", "message"),
    [
        ("sentences", "no sentences in .*; run `multicsr ingest CONFIG` first"),
        ("scored", "no scored rows in .*; run `multicsr generate CONFIG` first"),
        ("curated", "no curated rows in .*; run `multicsr curate CONFIG` first"),
        ("model", "no model in .*; run `multicsr train CONFIG` first"),
    ],
)
def test_a_artifact_without_manifest_states_what_makes_it(store, artifact, message):
    with pytest.raises(RunError, match=message):
        current(store).manifest(artifact)


def test_readers_see_what_the_manifest_names_and_no_more(store):
    entries = [store.write_table(f"scored/x/rows/{i}.parquet", pa.table({"n": [i]})) for i in range(3)]
    manifest = make_manifest(files=entries[:2], settings={"deep": {"omega": 0.3, "none": None}})
    publish(store, "scored", manifest)
    assert current(store).manifest("scored") == manifest
    assert [table["n"].to_pylist() for table in iter_tables(store, manifest)] == [[0], [1]]


def test_a_damaged_manifest_is_one_line(store):
    publish(store, "scored", make_manifest())
    store.write_text("scored/x/manifest.json", '{"stage": "generate"')
    with pytest.raises(RunError, match=r"manifest\.json is damaged") as caught:
        current(store).manifest("scored")
    assert "\n" not in str(caught.value)
