"""The audit finds nothing in a sound store, and whatever is wrong in one that is not."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multicsr.errors import RunError
from multicsr.storage.store import Store
from multicsr.storage.versions import Log, current, snapshot_of
from multicsr.tools.audit import audit, remarks
from tests.support.versions import manifest as blank_manifest
from tests.support.versions import publish


@pytest.fixture
def store(copy_of_run):
    return Store.open(copy_of_run.store)


def rewrite(store, artifact, change, index=0):
    """Replace a file of a room by `change(table)`, with the manifest's entry brought up to date."""
    manifest = current(store).manifest(artifact)
    files = list(manifest.files)
    files[index] = store.write_table(files[index].path, change(store.read_table(files[index])))
    publish(store, artifact, manifest.model_copy(update={"files": files}))


def test_a_sound_store_has_no_differences(store):
    assert audit(current(store)) == []


def test_an_empty_store_is_an_error(tmp_path):
    with pytest.raises(RunError, match="nothing to audit"):
        audit(current(Store.open(str(tmp_path))))


def test_missing_and_changed_files(store):
    scored = current(store).manifest("scored")
    store.delete(scored.files[0].path)
    path = store.directory / scored.files[1].path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    found = audit(current(store))
    assert f"scored: {scored.files[0].path} is missing" in found
    assert f"scored: {scored.files[1].path} has other bytes than when it was written" in found


def test_a_lost_row(store):
    rewrite(store, "scored", lambda table: table.slice(1))
    found = " | ".join(audit(current(store)))
    assert "scored: holds" in found
    assert "scored: holds other row ids than its manifest lists" in found
    assert "scored: was made from other rows than the artifact before it holds" in found


def test_a_changed_text(store):
    def edit(table):
        texts = ["Another text.", *table["text"].to_pylist()[1:]]
        return table.set_column(1, table.schema.field("text"), pa.array(texts))

    rewrite(store, "sentences", edit)
    assert any("1 row ids are not the hash of text and language" in found for found in audit(current(store)))


def test_a_repeated_row(store):
    rewrite(store, "sentences", lambda table: pa.concat_tables([table.slice(0, 1), table]))
    assert any("1 row ids are repeated or out of order" in found for found in audit(current(store)))


def test_other_columns(store):
    rewrite(store, "curated", lambda table: table.drop_columns(["swapped"]))
    assert any("has other columns than its artifact" in found for found in audit(current(store)))


@pytest.mark.parametrize(
    ("artifact", "changes", "message"),
    [
        ("scored", {"rows_in": 299}, "299 rows in, but the artifact before it holds 300"),
        ("scored", {"rejected": {}}, "scored: rejects are {"),
        ("curated", {"rows_out": 1}, "its manifest has 1"),
        ("sentences", {"rows_digest": "0" * 32}, "sentences: holds other row ids than its manifest lists"),
    ],
)
def test_a_manifest_that_lies(store, artifact, changes, message):
    manifest = current(store).manifest(artifact)
    publish(store, artifact, manifest.model_copy(update=changes))
    assert any(message in found for found in audit(current(store)))


def model_of(curated):
    """The manifest of a model that was trained on all curated rows."""
    no_rejects = {"rejected": {}, "reject_files": []}
    return curated.model_copy(
        update={"stage": "train", "rows_in": curated.rows_out, "files": [], **no_rejects}
    )


def test_a_model_trained_on_other_rows(store):
    model = model_of(current(store).manifest("curated"))
    publish(store, "model", model)
    assert audit(current(store)) == remarks(current(store)) == []
    publish(store, "model", model.model_copy(update={"rows_digest": "1" * 32}))
    assert audit(current(store)) == []
    (remark,) = remarks(current(store))
    assert remark.startswith("the model was trained on other triplets than this version holds")


def test_figures_of_another_model(store):
    model = model_of(current(store).manifest("curated"))
    publish(store, "model", model)
    publish(store, "evaluation", model.model_copy(update={"settings": {"model": model.fingerprint}}))
    assert audit(current(store)) == []
    publish(store, "evaluation", model.model_copy(update={"settings": {"model": "another"}}))
    assert audit(current(store)) == ["evaluation: measured another model; run `multicsr evaluate`"]


def test_the_schema_version_is_in_every_file(store):
    for name in store.names(""):
        if name.endswith(".parquet"):
            assert b"multicsr.schema" in pq.read_metadata(store.directory / name).metadata


def test_stray_files_of_an_artifact(store):
    snapshot = current(store)
    stray = f"{snapshot.folder('scored')}/rows/part-999999.parquet"
    store.write_bytes(stray, store.read_bytes(snapshot.manifest("scored").files[0].path))
    assert audit(snapshot) == [f"scored: {stray} is not in the manifest, and nothing reads it; delete it"]


def test_damaged_files_of_the_llm_cache(store):
    entry = store.named_entries("llm_cache")[0]
    store.write_bytes(entry.path, store.read_bytes(entry.path)[:-1] + b"x")
    assert audit(current(store)) == [f"{entry.path} has other bytes than when it was written"]


def test_missing_files_of_other_versions(store):
    entry = store.write_table("curated/old/rows/part-0.parquet", pa.table({"n": [1]}))
    publish(store, "curated", blank_manifest("curate", fingerprint="old", files=[entry]))
    snapshot = publish(store, "curated", snapshot_of(store, 3).manifest("curated"))
    assert audit(snapshot) == []
    store.delete(entry.path)
    assert audit(snapshot) == [f"version 4: {entry.path} is missing or has another size"]
    store.write_text("curated/old/manifest.json", "half of it")
    (found,) = audit(snapshot)
    assert found.startswith("version 4: ")
    assert "manifest.json is damaged; `multicsr run CONFIG` makes it again" in found
    store.delete("curated/old")
    assert audit(snapshot) == [], "deleted by gc"


def test_holes_in_the_log(store):
    last = Log(store).last()
    for position in (1, last):
        publish(store, "scored", current(store).manifest("scored"))
        store.delete(f"log/{position:08d}.json")
        holes = [remark for remark in remarks(current(store)) if "an entry of the log was deleted" in remark]
        assert f"log/{position:08d}.json is missing" in "".join(holes)
    assert len(holes) == 2
    assert audit(current(store)) == [], "to delete a damaged entry is what its message advises"
