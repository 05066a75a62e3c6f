"""Transfer of selected rows from many files to one training worker, in a given order, by Ray Data.

Only `pool.py` and this module use Ray Data: there shards are sent to actors, here rows are sent to a
worker. Tasks on the whole cluster read files and keep the selected rows; the worker puts them in order.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multicsr.errors import MulticsrError, RunError

_PLACE = "place"
_ERROR = "error"
_READERS = 4
"""Number of tasks at a time. They reserve no CPU: if the workers hold all CPUs, they would never start."""


def rows_in_order(
    paths: Sequence[str],
    read: Callable[[str], pa.Table],
    name_rows: Callable[[pa.Table], NDArray[np.uint64]],
    order_P: NDArray[np.uint64],
) -> pa.Table:
    """Return the rows whose numbers are in `order_P`, in that order; they must fit into memory.

    Args:
        paths: names of the files.
        read: reads one file as a table. It runs in a task.
        name_rows: returns a unique number for each row of a table. It runs in a task.
        order_P: numbers of the P rows to return.

    Returns:
        A table of P rows, with the columns that `read` returns.

    Raises:
        RunError: a row is missing, or a file cannot be read.
    """
    import ray
    import ray.data

    by_name_P = np.argsort(order_P)
    # Put into the object store once; in the closure it would be sent with every task.
    order = ray.put((order_P[by_name_P], by_name_P))

    def wanted(batch: Mapping[str, Sequence[str]]) -> pa.Table:
        try:
            table = read(batch["path"][0])
        except MulticsrError as error:  # as a value: Ray would wrap it in its own tracebacks
            return pa.table({_ERROR: [str(error)]})
        place_R = _places(name_rows(table), *ray.get(order))
        return table.append_column(_PLACE, pa.array(place_R)).filter(pa.array(place_R >= 0))

    with ray.data.DataContext.current(_context()):
        files = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=len(paths))
        parts = files.map_batches(
            wanted,
            batch_size=1,
            num_cpus=0,
            compute=ray.data.TaskPoolStrategy(size=min(_READERS, len(paths))),
        )
    tables = [*parts.iter_batches(batch_size=None, batch_format="pyarrow")]
    for table in tables:
        if _ERROR in table.column_names:
            raise RunError(table[_ERROR][0].as_py())
    num_rows = sum(table.num_rows for table in tables)
    if num_rows != len(order_P):
        raise RunError(
            f"{len(order_P):,} rows were planned for and {num_rows:,} are in the files; run the stage again"
        )
    rows = pa.concat_tables(tables, promote_options="default")  # files may differ in what is nullable
    return rows.take(np.argsort(rows[_PLACE].to_numpy())).drop_columns(_PLACE)


def _places(
    name_R: NDArray[np.uint64], sorted_P: NDArray[np.uint64], place_P: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return for each of R rows its position in the result, -1 if it is not selected.

    Args:
        name_R: numbers of the rows of one file.
        sorted_P: numbers of the selected rows, in ascending order.
        place_P: position in the result of each number in `sorted_P`.
    """
    found_R = np.minimum(np.searchsorted(sorted_P, name_R), len(sorted_P) - 1)
    return np.where(sorted_P[found_R] == name_R, place_P[found_R], -1)


def _context() -> Any:  # noqa: ANN401 - Ray's own type
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not logging.getLogger().isEnabledFor(logging.INFO):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return context
