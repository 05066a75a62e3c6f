"""Ranges of row ids, and the removal of duplicates within one range.

Equal sentences have equal ids, so all copies of a sentence fall into one range. The bounds of a range depend
only on the number of candidates. The files of the artifact therefore do not depend on the input files, on
chunks or on workers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from multicsr.rows import SENTENCE, Reason, rejects
from multicsr.storage.store import FileEntry, Store

RANGE_ROWS = 100_000
"""Candidates that one task takes, in many small output files or one larger file. Each task opens every chunk
of pass 1, so more tasks would open the same chunks more often."""
_FIRST = [("row_id", "ascending"), ("source", "ascending"), ("position", "ascending")]


@dataclass(frozen=True)
class IdRange:
    """Output files `first` to `stop` - 1 of `total` files, which divide the space of ids evenly."""

    first: int
    stop: int
    total: int

    @property
    def key(self) -> str:
        """Return the name of the range: the shard's key and a part of its file names."""
        return f"range-{self.first:06d}"

    def read(self, store: Store, entries: Iterable[FileEntry], column: str = "row_id") -> pa.Table:
        """Return all rows in the range.

        Args:
            store: the store that holds the files.
            entries: files sorted by `column`.
            column: the column of hexadecimal ids that the range applies to.
        """
        between = _between(column, self.first, self.stop, self.total)
        return pa.concat_tables([store.read_table(entry, filters=between) for entry in entries])

    def files(self, rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        """Yield the number and the rows of each output file of the range; `rows` must be sorted by id."""
        ids = rows["row_id"].to_numpy()
        cuts = np.searchsorted(ids, [_start(i, self.total) for i in range(self.first, self.stop)]).tolist()
        for number, begin, end in zip(range(self.first, self.stop), cuts, [*cuts[1:], len(ids)], strict=True):
            yield number, rows.slice(begin, end - begin)


def id_ranges(num_candidates: int, rows_per_file: int) -> list[IdRange]:
    """Divide `num_candidates` rows into files of about `rows_per_file` rows, and the files into tasks.

    Returns:
        One range per task, about `RANGE_ROWS` candidates or one larger file.
    """
    total = max(1, -(-num_candidates // rows_per_file))
    step = max(1, RANGE_ROWS // rows_per_file)
    return [IdRange(first, min(first + step, total), total) for first in range(0, total, step)]


def _start(number: int, total: int) -> str:
    """Return the least id of a file; for the number after the last file, a string above every id."""
    return f"{(number << 128) // total:032x}" if number < total else "g"


def _between(column: str, first: int, stop: int, total: int) -> pc.Expression:
    value = pc.field(column)
    return (value >= _start(first, total)) & (value < _start(stop, total))


def drop_duplicates(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Keep the first row of each id by (source, position), and reject the others.

    Returns:
        The kept rows, sorted by id, and the rejects, whose detail names the row that was kept.
    """
    rows = rows.sort_by(_FIRST)
    ids = rows["row_id"].to_numpy()
    is_first_N = np.ones(len(ids), dtype=bool)
    is_first_N[1:] = ids[1:] != ids[:-1]
    first_N = np.maximum.accumulate(np.where(is_first_N, np.arange(len(ids)), 0))
    kept = rows.take(first_N[~is_first_N])
    detail = pc.binary_join_element_wise(
        "same as ", kept["source"], ":", kept["position"].cast(pa.string()), ""
    )
    return rows.filter(is_first_N), reject(rows.filter(~is_first_N), Reason.DUPLICATE, detail)


def reject(rows: pa.Table, reason: Reason, detail: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return rows as rejects, all with one reason and each with its own detail."""
    reasons = pa.repeat(pa.scalar(reason.value, pa.string()), rows.num_rows)
    return pa.table([*rows.columns, reasons, detail], schema=rejects(SENTENCE))
