"""Where the sentences of planned batches come from: a table in memory, or curated files through Ray Data.

Both give the same rows in the same order, which is the plan's.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multicsr.manifest import Manifest
from multicsr.ray_stream import rows_in_order
from multicsr.store import Store
from multicsr.train.index import Index, digest
from multicsr.train.objectives import OBJECTIVES

RowNumbers = NDArray[np.int64]
_ROWS_PER_WINDOW = 1_000_000
"""Of one worker; some 300 MB of text, and as much again for the next window."""


@dataclass(frozen=True)
class OwnRows:
    """This worker's N rows of one global batch."""

    row_ids: list[str]
    sentences: list[list[str]]
    """S lists of N texts."""


Epochs = Sequence[Sequence[RowNumbers]]
"""Epochs of batches: numbers of rows in an `Index`."""
Source = Callable[[Epochs], Iterator[OwnRows]]
"""The rows of every batch, one after another."""


def from_table(table: pa.Table, index: Index, objective: str) -> Source:
    """Rows of a table in memory, of which `index` was made."""
    place_R = {digest(row_id): place for place, row_id in enumerate(table["row_id"].to_pylist())}
    texts = table.select(["row_id", *OBJECTIVES[objective].sentences])

    def read(epochs: Epochs) -> Iterator[OwnRows]:
        for batches in epochs:
            for row_N in batches:
                places = [place_R[name] for name in index.row_R[row_N].tolist()]
                yield _own_rows(texts.take(pa.array(places, pa.int64())))

    return read


def from_files(store: Store, curated: Manifest, index: Index, objective: str) -> Source:
    """Rows of a published room, read by Ray Data a window at a time: while one trains the next is read.

    A window takes one look at every file and holds a part of one epoch, so memory does not grow with the
    corpus; a corpus of less than a million rows a worker is one window an epoch.
    """
    columns = ["row_id", *OBJECTIVES[objective].sentences]
    paths = [entry.path for entry in curated.files]

    def window(batches: Sequence[RowNumbers]) -> list[pa.Table]:
        rows = rows_in_order(
            paths,
            lambda path: store.read_table(path, columns),
            lambda table: np.asarray([digest(row_id) for row_id in table["row_id"].to_pylist()], np.uint64),
            index.row_R[np.concatenate(batches)],
        )
        starts = np.cumsum([0, *(len(row_N) for row_N in batches)]).tolist()
        return [rows.slice(start, len(row_N)) for start, row_N in zip(starts, batches, strict=False)]

    def read(epochs: Epochs) -> Iterator[OwnRows]:
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
    """Parts of epochs that hold no more rows than fit."""
    for batches in epochs:
        per_window = max(1, _ROWS_PER_WINDOW // max(map(len, batches)))
        for start in range(0, len(batches), per_window):
            yield [*batches[start : start + per_window]]


def _own_rows(table: pa.Table) -> OwnRows:
    row_ids, *sentences = (column.to_pylist() for column in table.columns)
    return OwnRows(row_ids, sentences)
