"""How two rooms differ, found by ranges of ids in workers: nobody holds the ids of a corpus."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.generate.ledger import read_ids
from multicsr.manifest import Manifest
from multicsr.ray_stage import Pool, map_items
from multicsr.store import FileEntry, Span, Store


@dataclass(frozen=True)
class Difference:
    """Of a room to the one before it."""

    before: int
    """Rows."""
    now: int
    same: int
    """Rows with the same id and content."""
    known: int
    """Rows with the same id."""

    @property
    def new(self) -> int:
        return self.now - self.known

    @property
    def removed(self) -> int:
        return self.before - self.known

    @property
    def share(self) -> float:
        """Rows that are new, gone or have another content, of all there are now."""
        changed = self.now - self.same + self.removed
        return min(1.0, changed / max(self.now, 1))


@dataclass(frozen=True)
class _Pair:
    """A file, and those of the other room that may hold rows with its ids."""

    path: str
    others: tuple[str, ...]
    span: Span


def compare(store: Store, before: Manifest | None, now: Manifest, columns: Sequence[str] = ()) -> Difference:
    """Count what two rooms have in common.

    Args:
        before: None: nothing was there.
        columns: the content that is compared beside the id.
    """
    if before is None or not before.rows_out:
        return Difference(0, now.rows_out, 0, 0)
    if before.fingerprint == now.fingerprint or (not columns and before.rows_digest == now.rows_digest):
        return Difference(before.rows_out, now.rows_out, now.rows_out, now.rows_out)

    def look(pair: _Pair) -> tuple[int, int]:
        names = ["row_id", *columns]
        ours = store.read_table(pair.path, names)
        theirs = [store.read_table(path, names, pair.span.rows) for path in pair.others]
        return _in_common(ours, pa.concat_tables(theirs) if theirs else ours.slice(0, 0), columns)

    found = list(map_items("compare", lambda: look, _pairs(now.files, before.files), Pool()))
    known, same = (sum(counts) for counts in zip(*found, strict=True)) if found else (0, 0)
    return Difference(before.rows_out, now.rows_out, same, known)


def write_removed(store: Store, before: Manifest, now: Manifest, folder: str) -> None:
    """Write the rows of a room that are in the later one no more: tombstones, for whoever asks."""

    def look(pair: _Pair) -> None:
        ours = store.read_table(pair.path)
        gone = ours.filter(pc.invert(pc.is_in(ours["row_id"], read_ids(store, pair.others, pair.span))))
        if gone.num_rows:
            store.write_table(f"{folder}/{pair.span.first}.parquet", gone)

    for _ in map_items("compare", lambda: look, _pairs(before.files, now.files), Pool()):
        pass


def _pairs(ours: Sequence[FileEntry], theirs: Sequence[FileEntry]) -> list[_Pair]:
    return [
        _Pair(own.path, tuple(each.path for each in theirs if each.ids and each.ids.meets(own.ids)), own.ids)
        for own in ours
        if own.ids
    ]


def _in_common(ours: pa.Table, theirs: pa.Table, columns: Sequence[str]) -> tuple[int, int]:
    """(rows of the same id, of these the rows of the same content)."""
    place = pc.index_in(ours["row_id"], theirs["row_id"].combine_chunks())
    both = pc.is_valid(place)
    ours, theirs = ours.filter(both), theirs.take(place.filter(both))
    is_same = pa.chunked_array([pa.array([True] * ours.num_rows, pa.bool_())])
    for column in columns:
        is_same = pc.and_(is_same, pc.equal(ours[column], theirs[column]))
    return ours.num_rows, pc.sum(is_same).as_py() or 0
