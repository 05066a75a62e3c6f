"""Ray Data for training: rows of many files, in a given order, to one worker.

The other half of the door to Ray Data (`ray_stage.py` is the first): there shards go to actors, here rows
come to a worker. Every worker runs a pipeline of its own: tasks read each file and keep the worker's rows,
a distributed sort puts them into the order of the plan, spilling to disk what does not fit, and batches
come out while others are made.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multicsr.errors import RunError

_PLACE = "place"
_BATCHES_AHEAD = 4
"""Batches held ready beyond the one in use."""
_READ_CPUS = 0.25
"""Reading and sorting wait for storage more than they compute."""
_CHANGED = "rows that were planned for are not in the files any more; run the stage again"


def rows_in_order(
    paths: Sequence[str],
    read: Callable[[str], pa.Table],
    name_rows: Callable[[pa.Table], NDArray[np.uint64]],
    order_P: NDArray[np.uint64],
    batch_sizes: Sequence[int],
) -> Iterator[pa.Table]:
    """The rows that are named in `order_P`, in that order, cut into batches.

    Args:
        paths: names of files.
        read: one file as a table. Runs in a task.
        name_rows: a number for each row of a table, unlike all others'. Runs in a task.
        order_P: such numbers.
        batch_sizes: they add up to the length of `order_P`.

    Raises:
        RunError: such a row is in no file, or in two.
    """
    import ray
    import ray.data

    by_name_P = np.argsort(order_P)
    # Put once into the object store: a closure would carry it into every task.
    order = ray.put((order_P[by_name_P], by_name_P))

    def wanted(batch: Mapping[str, Sequence[str]]) -> pa.Table:
        table = read(batch["path"][0])
        place_R = _places(name_rows(table), *ray.get(order))
        return table.append_column(_PLACE, pa.array(place_R)).filter(pa.array(place_R >= 0))

    with ray.data.DataContext.current(_context()):
        files = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=len(paths))
        rows = files.map_batches(wanted, batch_size=1, num_cpus=_READ_CPUS).sort(_PLACE)
        tables = rows.iter_batches(
            batch_size=max(batch_sizes), batch_format="pyarrow", prefetch_batches=_BATCHES_AHEAD
        )
    yield from _recut(_in_place(tables), batch_sizes)


def _places(
    name_R: NDArray[np.uint64], sorted_P: NDArray[np.uint64], place_P: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where each row belongs, -1 where it is not wanted."""
    found_R = np.minimum(np.searchsorted(sorted_P, name_R), len(sorted_P) - 1)
    return np.where(sorted_P[found_R] == name_R, place_P[found_R], -1)


def _context() -> Any:  # noqa: ANN401 - Ray's own type
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    if not logging.getLogger().isEnabledFor(logging.INFO):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return context


def _in_place(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows without their places. A gap would shift every row after it into another's place."""
    first = 0
    for table in tables:
        expected_R = np.arange(first, first + table.num_rows)
        if not np.array_equal(table[_PLACE].to_numpy(), expected_R):
            raise RunError(_CHANGED)
        first += table.num_rows
        yield table.drop_columns(_PLACE)


def _recut(tables: Iterator[pa.Table], sizes: Sequence[int]) -> Iterator[pa.Table]:
    """The same rows in batches of other sizes."""
    held: list[pa.Table] = []
    for size in sizes:
        while sum(table.num_rows for table in held) < size:
            if (table := next(tables, None)) is None:
                raise RunError(_CHANGED)
            held.append(table)
        rows = pa.concat_tables(held)
        yield rows.slice(0, size)
        held = [rows.slice(size)]
