"""Where the sentences of planned batches come from: a table in memory, or curated files through Ray Data.

Both give the same rows in the same order, which is the plan's.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multicsr.manifest import Manifest
from multicsr.ray_stream import rows_in_order
from multicsr.store import Store
from multicsr.train.index import Index, digest
from multicsr.train.objectives import OBJECTIVES

RowNumbers = NDArray[np.int64]


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
    """Rows of a published room, streamed by Ray Data; while one epoch is read the next is prepared."""
    columns = ["row_id", *OBJECTIVES[objective].sentences]
    paths = [entry.path for entry in curated.files]

    def epoch(batches: Sequence[RowNumbers]) -> Iterator[pa.Table]:
        rows = rows_in_order(
            paths,
            lambda path: store.read_table(path, columns),
            lambda table: np.asarray([digest(row_id) for row_id in table["row_id"].to_pylist()], np.uint64),
            index.row_R[np.concatenate(batches)],
            [len(row_N) for row_N in batches],
        )
        return chain([next(rows)], rows)

    def read(epochs: Epochs) -> Iterator[OwnRows]:
        with ThreadPoolExecutor(max_workers=1) as ahead:
            coming = ahead.submit(epoch, epochs[0])
            for following in [*epochs[1:], None]:
                rows = coming.result()
                if following is not None:
                    coming = ahead.submit(epoch, following)
                yield from map(_own_rows, rows)

    return read


def _own_rows(table: pa.Table) -> OwnRows:
    row_ids, *sentences = (column.to_pylist() for column in table.columns)
    return OwnRows(row_ids, sentences)
