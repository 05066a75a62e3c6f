"""Sources of the sentences of planned batches: a table in memory, or files of rows through Ray Data.

Both return the same rows in the same order, which is the order of the plan.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multicsr.execution.row_stream import rows_in_order
from multicsr.stages.train.data.index import Index, digest, with_negatives
from multicsr.stages.train.objectives.load import load_objective
from multicsr.storage.store import FileEntry, Store

RowNumbers = NDArray[np.int64]
"""Numbers of rows in an `Index`."""
_ROWS_PER_WINDOW = 1_000_000
"""Rows of one worker in a window: about 300 MB of text, and as much again for the next window."""


@dataclass(frozen=True)
class OwnRows:
    """The texts of this worker's N rows of one global batch."""

    row_ids: list[str]
    """N row ids."""
    sentences: list[list[str]]
    """S lists of N texts. The positive stands in the place of a hard negative that is missing."""


Epochs = Sequence[Sequence[RowNumbers]]
"""Row numbers of the batches of some epochs."""
Source = Callable[[Epochs], Iterator[OwnRows]]
"""A function that yields the rows of every batch, one batch after another."""


def from_table(table: pa.Table, index: Index, objective: str) -> Source:
    """Return a source that reads from a table in memory.

    Args:
        table: curated rows, and labelled ones.
        index: the index that was made from `table`.
        objective: name of the objective, which decides the columns.
    """
    place_R = {digest(row_id): place for place, row_id in enumerate(table["row_id"].to_pylist())}
    texts = table.select(["row_id", *load_objective(objective).sentences])

    def read(epochs: Epochs) -> Iterator[OwnRows]:
        """Yield the rows of every batch."""
        for batches in epochs:
            for row_N in batches:
                places = [place_R[name] for name in index.row_R[row_N].tolist()]
                yield _own_rows(texts.take(pa.array(places, pa.int64())))

    return read


def from_files(store: Store, files: Sequence[FileEntry], index: Index, objective: str) -> Source:
    """Return a source that reads files of rows by Ray Data, one window at a time.

    While the rows of one window train, the next window is read. A window reads every file once and holds a
    part of one epoch, so memory does not grow with the corpus. If a worker has less than a million rows, an
    epoch is one window.

    Args:
        store: the store.
        files: files of curated rows, and of labelled ones.
        index: the index of its rows.
        objective: name of the objective, which decides the columns.
    """
    columns = ["row_id", *load_objective(objective).sentences]
    entries = {entry.path: entry for entry in files}

    def window(batches: Sequence[RowNumbers]) -> list[pa.Table]:
        """Return the rows of each batch of a window."""
        rows = rows_in_order(
            [*entries],
            lambda path: store.read_table(entries[path], columns),
            lambda table: np.asarray([digest(row_id) for row_id in table["row_id"].to_pylist()], np.uint64),
            index.row_R[np.concatenate(batches)],
        )
        starts = np.cumsum([0, *(len(row_N) for row_N in batches)]).tolist()
        return [rows.slice(start, len(row_N)) for start, row_N in zip(starts, batches, strict=False)]

    def read(epochs: Epochs) -> Iterator[OwnRows]:
        """Yield the rows of every batch, and read the next window at the same time."""
        windows = [*_windows(epochs)]
        with ThreadPoolExecutor(max_workers=1) as ahead:
            coming = ahead.submit(window, windows[0])
            for following in [*windows[1:], None]:
                tables = coming.result()
                if following is not None:
                    coming = ahead.submit(window, following)
                yield from map(_own_rows, tables)

    return read


def _windows(epochs: Epochs) -> Iterator[list[RowNumbers]]:
    """Yield windows: consecutive batches of one epoch, at most `_ROWS_PER_WINDOW` rows or one batch."""
    for batches in epochs:
        per_window = max(1, _ROWS_PER_WINDOW // max(map(len, batches)))
        for start in range(0, len(batches), per_window):
            yield [*batches[start : start + per_window]]


def _own_rows(table: pa.Table) -> OwnRows:
    """Return the rows of a table whose first column is the row id and whose other columns are sentences."""
    row_ids, *sentences = (column.to_pylist() for column in with_negatives(table).columns)
    return OwnRows(row_ids, sentences)
