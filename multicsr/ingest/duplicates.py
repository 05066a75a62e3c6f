"""Ranges of ids, and what meets in one: equal sentences have equal ids.

Where a range begins depends on the number of candidates alone, so the room's files do not depend on those
that were read, on chunks or workers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from multicsr.rows import SENTENCE, Reason, rejects
from multicsr.store import Store

RANGE_ROWS = 100_000
"""Candidates one task takes, which may be many files or one larger: each task opens every chunk of pass 1."""
_FIRST = [("row_id", "ascending"), ("source", "ascending"), ("position", "ascending")]


@dataclass(frozen=True)
class IdRange:
    """Files `first` to `stop` - 1 of `total`, which cut the space of ids evenly."""

    first: int
    stop: int
    total: int

    @property
    def key(self) -> str:
        return f"range-{self.first:06d}"

    def read(self, store: Store, names: Iterable[str], column: str = "row_id") -> pa.Table:
        """All rows in the range, out of files that are sorted by `column`."""
        between = _between(column, self.first, self.stop, self.total)
        return pa.concat_tables([store.read_table(name, filters=between) for name in names])

    def files(self, rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        """The rows of each file, with its number; `rows` sorted by id."""
        ids = rows["row_id"].to_numpy()
        cuts = np.searchsorted(ids, [_start(i, self.total) for i in range(self.first, self.stop)]).tolist()
        for number, begin, end in zip(range(self.first, self.stop), cuts, [*cuts[1:], len(ids)], strict=True):
            yield number, rows.slice(begin, end - begin)


def id_ranges(num_candidates: int, rows_per_file: int) -> list[IdRange]:
    """Cut so many candidates into files of about `rows_per_file`, and the files into tasks."""
    total = max(1, -(-num_candidates // rows_per_file))
    step = max(1, RANGE_ROWS // rows_per_file)
    return [IdRange(first, min(first + step, total), total) for first in range(0, total, step)]


def _start(number: int, total: int) -> str:
    """The least id of a file; past the last file, what is above every id."""
    return f"{(number << 128) // total:032x}" if number < total else "g"


def _between(column: str, first: int, stop: int, total: int) -> pc.Expression:
    value = pc.field(column)
    return (value >= _start(first, total)) & (value < _start(stop, total))


def drop_duplicates(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """(first of each id by source and position, sorted by id; rejects of the others)."""
    rows = rows.sort_by(_FIRST)
    ids = rows["row_id"].to_numpy()
    is_first_N = np.ones(len(ids), dtype=bool)
    is_first_N[1:] = ids[1:] != ids[:-1]
    first_N = np.maximum.accumulate(np.where(is_first_N, np.arange(len(ids)), 0))
    kept = rows.take(first_N[~is_first_N])
    detail = pc.binary_join_element_wise(
        "same as ", kept["source"], ":", kept["position"].cast(pa.string()), ""
    )
    return rows.filter(is_first_N), refuse(rows.filter(~is_first_N), Reason.DUPLICATE, detail)


def refuse(rows: pa.Table, reason: Reason, detail: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Rows as rejects, all for one reason."""
    reasons = pa.repeat(pa.scalar(reason.value, pa.string()), rows.num_rows)
    return pa.table([*rows.columns, reasons, detail], schema=rejects(SENTENCE))
