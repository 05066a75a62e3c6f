"""The list of versions says why the rows of an artifact are not known, and hides no other error."""

import io
import json

import pytest
from rich.console import Console

from multicsr.errors import RunError
from multicsr.stages.report.versions import records, table
from multicsr.storage.local import Disk
from multicsr.storage.manifest import manifest_name
from multicsr.storage.store import Store
from tests.support.versions import manifest, publish

NAME = manifest_name("scored", "f")


@pytest.fixture
def store(tmp_path):
    store = Store.open(str(tmp_path / "store"))
    publish(store, "scored", manifest("generate", rows_out=4321))
    return store


def write_schema(store, number):
    """Replace the record by one of another version of the package, which had no checksum."""
    content = json.loads(store.read_text(NAME)) | {"schema": str(number)}
    del content["checksum"]
    store.write_text(NAME, json.dumps(content))


@pytest.mark.parametrize(
    ("change", "word", "rows"),
    [
        (lambda store: None, "4,321", 4321),
        (lambda store: store.delete(NAME), "deleted", None),
        (lambda store: store.write_text(NAME, "half of it"), "damaged", None),
        (lambda store: write_schema(store, 99), "unreadable", None),
    ],
)
def test_why_rows_are_not_known_is_reported(store, change, word, rows):
    change(store)
    out = io.StringIO()
    Console(file=out, width=200).print(table(store))
    words = ("4,321", "deleted", "damaged", "unreadable")
    assert [each for each in words if each in out.getvalue()] == [word]
    assert records(store)[0]["rows"] == {"scored": rows}


def test_a_place_that_cannot_be_reached_is_an_error(store, monkeypatch):
    read = Disk.read

    def reject(self, name):
        if name == NAME:
            raise RunError("store: access is refused")
        return read(self, name)

    monkeypatch.setattr(Disk, "read", reject)
    for shown in (table, records):
        with pytest.raises(RunError, match="access is refused"):
            shown(store)
