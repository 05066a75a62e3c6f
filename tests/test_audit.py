"""The audit finds nothing in a sound store, and whatever is wrong in one that is not."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multicsr.audit import audit, remarks
from multicsr.errors import RunError
from multicsr.store import Store
from multicsr.versions import current
from tests.rooms import publish


@pytest.fixture
def store(copy_of_run):
    return Store.open(copy_of_run.store)


def rewrite(store, room, change, index=0):
    """Replace a file of a room by `change(table)`, with the manifest's entry brought up to date."""
    manifest = current(store).manifest(room)
    files = list(manifest.files)
    files[index] = store.write_table(files[index].path, change(store.read_table(files[index].path)))
    publish(store, room, manifest.model_copy(update={"files": files}))


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
    assert "scored: holds other row ids than its manifest says" in found
    assert "scored: was made from other rows than the room before holds" in found


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
    assert any("has other columns than its room" in found for found in audit(current(store)))


@pytest.mark.parametrize(
    ("room", "changes", "message"),
    [
        ("scored", {"rows_in": 299}, "299 rows in, but the room before holds 300"),
        ("scored", {"rejected": {}}, "scored: rejects are {"),
        ("curated", {"rows_out": 1}, "its manifest says 1"),
        ("sentences", {"rows_digest": "0" * 32}, "sentences: holds other row ids than its manifest says"),
    ],
)
def test_a_manifest_that_lies(store, room, changes, message):
    manifest = current(store).manifest(room)
    publish(store, room, manifest.model_copy(update=changes))
    assert any(message in found for found in audit(current(store)))


def test_a_model_trained_on_other_rows(store):
    curated = current(store).manifest("curated")
    model = curated.model_copy(update={"stage": "train", "rows_in": curated.rows_out, "files": []})
    publish(store, "model", model)
    assert audit(current(store)) == remarks(current(store)) == []
    publish(store, "model", model.model_copy(update={"rows_digest": "1" * 32}))
    assert audit(current(store)) == []
    (remark,) = remarks(current(store))
    assert remark.startswith("the model was trained on other triplets than this version holds")


def test_figures_of_another_model(store):
    curated = current(store).manifest("curated")
    model = curated.model_copy(update={"stage": "train", "rows_in": curated.rows_out, "files": []})
    publish(store, "model", model)
    publish(store, "evaluation", model.model_copy(update={"settings": {"model": model.fingerprint}}))
    assert audit(current(store)) == []
    publish(store, "evaluation", model.model_copy(update={"settings": {"model": "another"}}))
    assert audit(current(store)) == ["evaluation: measured another model; run `multicsr evaluate`"]


def test_the_schema_version_is_in_every_file(store):
    for name in store.names(""):
        if name.endswith(".parquet"):
            assert b"multicsr.schema" in pq.read_metadata(store.directory / name).metadata
