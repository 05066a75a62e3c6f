"""Recounts a version from its files: what every manifest says, and what the rooms say of each other."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.errors import RunError
from multicsr.manifest import Manifest, add_digests, rows_digest
from multicsr.rows import CURATED, SCORED, SENTENCE, rejects, row_id
from multicsr.store import FileEntry, Store, checksum
from multicsr.tally import count_reasons
from multicsr.versions import Rooms

ROOMS = {"sentences": SENTENCE, "scored": SCORED, "curated": CURATED}


def audit(rooms: Rooms) -> list[str]:
    """Every difference between what is written down and what is there; none is an empty list.

    Rows are counted, ids made again from their texts, checksums, digests and reasons added up, one file in
    memory at a time.

    Raises:
        RunError: there is no room to audit, or a manifest cannot be read.
    """
    store = rooms.store
    manifests = {room: rooms.manifest(room) for room in ROOMS if room in rooms}
    if not manifests:
        raise RunError(f"nothing to audit in {store.uri()}; run `multicsr run CONFIG` first")
    differences: list[str] = []
    before: Manifest | None = None
    for room, manifest in manifests.items():
        differences += [f"{room}: {difference}" for difference in _audit_room(store, room, manifest, before)]
        before = manifest
    for room in ("model", "evaluation"):
        if room in rooms:
            found = _audit_files(store, rooms.manifest(room))
            differences += [f"{room}: {difference}" for difference in found]
    if (
        "evaluation" in rooms
        and rooms.manifest("evaluation").settings["model"] != rooms.fingerprints["model"]
    ):
        differences.append("evaluation: measured another model; run `multicsr evaluate`")
    return differences


def remarks(rooms: Rooms) -> list[str]:
    """What is as it may be and worth knowing all the same."""
    if "model" not in rooms or "curated" not in rooms:
        return []
    model, curated = rooms.manifest("model"), rooms.manifest("curated")
    if (model.rows_in, model.rows_digest) == (curated.rows_out, curated.rows_digest):
        return []
    return [
        "the model was trained on other triplets than this version holds; `multicsr train` makes a new one"
    ]


def _audit_room(store: Store, room: str, manifest: Manifest, before: Manifest | None) -> Iterator[str]:
    rows = _Room()
    yield from rows.read(store, manifest.files, ROOMS[room])
    refused = _Room()
    yield from refused.read(store, manifest.reject_files, rejects(ROOMS[room]))
    rejected = sum(manifest.rejected.values())
    if manifest.rows_in != manifest.rows_out + rejected:
        yield f"{manifest.rows_in:,} rows in, {manifest.rows_out:,} out and {rejected:,} rejected"
    if rows.number != manifest.rows_out:
        yield f"holds {rows.number:,} rows, its manifest says {manifest.rows_out:,}"
    if dict(refused.reasons) != manifest.rejected:
        yield f"rejects are {dict(refused.reasons)}, its manifest says {manifest.rejected}"
    if rows.digest() != manifest.rows_digest:
        yield "holds other row ids than its manifest says"
    if before is None:
        return
    if before.rows_out != manifest.rows_in:
        yield f"{manifest.rows_in:,} rows in, but the room before holds {before.rows_out:,}"
    elif add_digests([rows.digest(), refused.digest()]) != before.rows_digest:
        yield f"was made from other rows than the room before holds; run `multicsr {manifest.stage}`"


def _audit_files(store: Store, manifest: Manifest) -> Iterator[str]:
    """Of a room that holds no rows: a model or its figures."""
    for entry in manifest.files:
        yield from _audit_bytes(store, entry)


class _Room:
    """What the files of a room hold, added up while they are read."""

    def __init__(self) -> None:
        self.number = 0
        self.reasons: Counter[str] = Counter()
        self._digests: list[str] = []
        self._last = ""

    def digest(self) -> str:
        return add_digests(self._digests)

    def read(self, store: Store, entries: Sequence[FileEntry], schema: pa.Schema) -> Iterator[str]:
        """Add up the files, and yield what is wrong with each."""
        for entry in entries:
            damage = list(_audit_bytes(store, entry))
            yield from damage
            if damage:
                continue
            table = store.read_table(entry.path)
            if not table.schema.equals(schema):
                yield f"{entry.path} has other columns than its room"
                continue
            if table.num_rows != entry.rows:
                yield f"{entry.path} holds {table.num_rows:,} rows, its manifest says {entry.rows:,}"
            yield from self._add(entry.path, table)

    def _add(self, path: str, table: pa.Table) -> Iterator[str]:
        self.number += table.num_rows
        identified = table.filter(pc.is_valid(table["row_id"]))
        self._digests.append(rows_digest(identified["row_id"]))
        columns = (identified[name].to_pylist() for name in ("row_id", "text", "language"))
        wrong = sum(id_ != row_id(text, language) for id_, text, language in zip(*columns, strict=True))
        if wrong:
            yield f"{path}: {wrong:,} row ids are not the hash of text and language"
        if "reason" in table.column_names:
            self.reasons.update(count_reasons(table))
        else:
            yield from self._check_order(path, table)

    def _check_order(self, path: str, table: pa.Table) -> Iterator[str]:
        """Ids rise strictly through a room, which makes them unique without holding them all."""
        ids = [self._last, *table["row_id"].to_pylist()]
        repeated = sum(one >= other for one, other in pairwise(ids))
        if repeated:
            yield f"{path}: {repeated:,} row ids are repeated or out of order"
        self._last = ids[-1]


def _audit_bytes(store: Store, entry: FileEntry) -> Iterator[str]:
    if not store.exists(entry.path):
        yield f"{entry.path} is missing"
    elif checksum(store.read_bytes(entry.path)) != entry.checksum:
        yield f"{entry.path} has other bytes than when it was written"
