"""Triplets that a kept model was trained on: nothing makes them again, so damage to them ends no refresh."""

import pyarrow as pa
import pytest

from multicsr.pipeline import refresh
from multicsr.rows import row_id
from multicsr.storage.manifest import rows_digest
from tests.support.versions import manifest

pytestmark = pytest.mark.usefixtures("without_ray")


def triplets(store, key, texts):
    ids = sorted((row_id(text, "en"), text) for text in texts)
    columns = {"row_id": [id_ for id_, _ in ids], "text": [text for _, text in ids]}
    columns |= {name: [f"{name} {text}" for _, text in ids] for name in ("entailment", "contradiction")}
    table = pa.table(columns)
    entry = store.write_table(f"curated/{key}/rows/part-0.parquet", table)
    facts = {"files": [entry], "rows_out": len(texts), "rows_digest": rows_digest(table["row_id"])}
    return manifest("curate", fingerprint=key, **facts)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_damaged_triplets_of_an_old_training_count_as_changed(place, damage, caplog):
    old, new = triplets(place, "old", ["a", "b", "c"]), triplets(place, "new", ["a", "b", "d"])
    assert refresh._changed_share(place, old, new) == pytest.approx(2 / 3)
    (entry,) = old.files
    data = place.read_bytes(entry.path)
    place.files.delete([entry.path])
    if damage != "gone":
        place.write_bytes(entry.path, data[:-9] if damage == "cut" else data[:60] + b"\x01" + data[61:])
    assert refresh._changed_share(place, old, new) == 1.0
    assert f"{entry.path}" in caplog.text
    assert "all triplets count as changed" in caplog.text
