"""Difference of two artifacts.

Workers compare ranges of ids, so no process holds all ids of a corpus.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.execution.pool import Pool, map_items
from multicsr.storage.id_span import IdSpan
from multicsr.storage.manifest import Manifest
from multicsr.storage.row_ids import read_ids
from multicsr.storage.store import FileEntry, Store


@dataclass(frozen=True)
class Difference:
    """Counts of the rows that differ between an artifact and its predecessor."""

    before: int
    """Number of rows in the predecessor."""
    now: int
    """Number of rows in the artifact."""
    same: int
    """Number of rows whose id and content are in both."""
    known: int
    """Number of rows whose id is in both."""

    @property
    def new(self) -> int:
        """Return the number of rows whose id is only in the artifact."""
        return self.now - self.known

    @property
    def removed(self) -> int:
        """Return the number of rows whose id is only in the predecessor."""
        return self.before - self.known

    @property
    def share(self) -> float:
        """Return the number of new, removed and changed rows divided by the rows now, at most 1."""
        changed = self.now - self.same + self.removed
        return min(1.0, changed / max(self.now, 1))


@dataclass(frozen=True)
class _Pair:
    """A file, and the files of the other artifact that may contain its ids."""

    entry: FileEntry
    others: tuple[FileEntry, ...]
    span: IdSpan


def compare(store: Store, before: Manifest | None, now: Manifest, columns: Sequence[str] = ()) -> Difference:
    """Count the rows that two artifacts have in common.

    Args:
        store: the store of both artifacts.
        before: manifest of the predecessor; None if there is none.
        now: manifest of the artifact.
        columns: columns that are compared in addition to the id.
    """
    if before is None or not before.rows_out:
        return Difference(0, now.rows_out, 0, 0)
    if before.fingerprint == now.fingerprint or (not columns and before.rows_digest == now.rows_digest):
        return Difference(before.rows_out, now.rows_out, now.rows_out, now.rows_out)

    def look(pair: _Pair) -> tuple[int, int]:
        names = ["row_id", *columns]
        ours = store.read_table(pair.entry, names)
        theirs = [store.read_table(entry, names, pair.span.rows) for entry in pair.others]
        return _in_common(ours, pa.concat_tables(theirs) if theirs else ours.slice(0, 0), columns)

    found = list(map_items("compare", lambda: look, _pairs(now.files, before.files), Pool()))
    known, same = (sum(counts) for counts in zip(*found, strict=True)) if found else (0, 0)
    return Difference(before.rows_out, now.rows_out, same, known)


def write_removed(store: Store, before: Manifest, now: Manifest, folder: str) -> None:
    """Write tombstones: the rows of an artifact that its successor does not contain.

    Args:
        store: the store of both artifacts.
        before: manifest of the artifact.
        now: manifest of its successor.
        folder: folder for the files.
    """

    def look(pair: _Pair) -> None:
        ours = store.read_table(pair.entry)
        gone = ours.filter(pc.invert(pc.is_in(ours["row_id"], read_ids(store, pair.others, pair.span.rows))))
        if gone.num_rows:
            store.write_named_table(f"{folder}/{pair.span.first}", gone)

    for _ in map_items("compare", lambda: look, _pairs(before.files, now.files), Pool()):
        pass


def _pairs(ours: Sequence[FileEntry], theirs: Sequence[FileEntry]) -> list[_Pair]:
    return [
        _Pair(own, tuple(each for each in theirs if each.ids and each.ids.meets(own.ids)), own.ids)
        for own in ours
        if own.ids
    ]


def _in_common(ours: pa.Table, theirs: pa.Table, columns: Sequence[str]) -> tuple[int, int]:
    """Return the number of rows whose id is in both tables, and how many of these have the same content."""
    place = pc.index_in(ours["row_id"], theirs["row_id"].combine_chunks())
    both = pc.is_valid(place)
    ours, theirs = ours.filter(both), theirs.take(place.filter(both))
    is_same = pa.chunked_array([pa.array([True] * ours.num_rows, pa.bool_())])
    for column in columns:
        is_same = pc.and_(is_same, pc.equal(ours[column], theirs[column]))
    return ours.num_rows, pc.sum(is_same).as_py() or 0
