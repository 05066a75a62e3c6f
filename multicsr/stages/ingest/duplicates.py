"""Ranges of row ids, and the removal of duplicates within one range.

Equal sentences have equal ids, so all copies of a sentence fall into one range. The bounds of a range depend
only on the number of candidates. The files of the artifact therefore do not depend on the input files, on
chunks or on workers.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multicsr.rows import SENTENCE, Reason, rejects
from multicsr.storage.id_numbers import id_words, order_by_id
from multicsr.storage.store import FileEntry, Store

RANGE_ROWS = 100_000
"""Candidates that one task takes, in many small output files or one larger file. Each task opens every chunk
of pass 1, so more tasks would open the same chunks more often."""


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
        is_all = self.first == 0 and self.stop == self.total
        between = None if is_all else _between(column, self.first, self.stop, self.total)
        return pa.concat_tables([store.read_table(entry, filters=between) for entry in entries])

    def files(self, rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        """Yield the number and the rows of each output file of the range; `rows` must be sorted by id."""
        ids, numbers = rows["row_id"], range(self.first, self.stop)
        bounds = [_start(number, self.total) for number in numbers]
        cuts = [bisect_left(range(len(ids)), bound, key=lambda row: ids[row].as_py()) for bound in bounds]
        for number, begin, end in zip(numbers, cuts, [*cuts[1:], len(ids)], strict=True):
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
    words_N2 = id_words(rows["row_id"])
    order_N = order_by_id(words_N2, _ranks(rows["source"]), rows["position"].to_numpy())
    words_N2 = words_N2[order_N]
    is_first_N = np.ones(len(order_N), dtype=bool)
    is_first_N[1:] = (words_N2[1:] != words_N2[:-1]).any(axis=1)
    first_N = np.maximum.accumulate(np.where(is_first_N, np.arange(len(order_N)), 0))
    kept = rows.take(order_N[first_N[~is_first_N]])
    detail = pc.binary_join_element_wise(
        "same as ", kept["source"], ":", kept["position"].cast(pa.string()), ""
    )
    duplicates = rows.take(order_N[~is_first_N])
    return rows.take(order_N[is_first_N]), reject(duplicates, Reason.DUPLICATE, detail)


def _ranks(texts: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return for each text the number of different texts that are less."""
    coded = texts.combine_chunks().dictionary_encode()
    rank_D = pc.rank(coded.dictionary).to_numpy().astype(np.int64)
    return np.asarray(rank_D[coded.indices.to_numpy()])


def reject(rows: pa.Table, reason: Reason, detail: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return rows as rejects, all with one reason and each with its own detail."""
    reasons = pa.repeat(pa.scalar(reason.value, pa.string()), rows.num_rows)
    return pa.table([*rows.columns, reasons, detail], schema=rejects(SENTENCE))
