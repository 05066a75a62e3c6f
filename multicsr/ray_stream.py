"""Ray Data for training: chosen rows of many files, in a given order, to one worker.

The other half of the door to Ray Data (`ray_stage.py` is the first): there shards go to actors, here rows
come to a worker. Tasks all over the cluster read files and keep what is wanted; the worker orders it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multicsr.errors import RunError

_PLACE = "place"
_READERS = 4
"""Tasks at a time. They reserve no CPU: where the workers hold all there are, they would never start."""


def rows_in_order(
    paths: Sequence[str],
    read: Callable[[str], pa.Table],
    name_rows: Callable[[pa.Table], NDArray[np.uint64]],
    order_P: NDArray[np.uint64],
) -> pa.Table:
    """The rows that are named in `order_P`, in that order; they must fit into this process.

    Args:
        paths: names of files.
        read: one file as a table. Runs in a task.
        name_rows: a number for each row of a table, unlike all others'. Runs in a task.
        order_P: such numbers.

    Raises:
        RunError: a row is missing.
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
        parts = files.map_batches(
            wanted,
            batch_size=1,
            num_cpus=0,
            compute=ray.data.TaskPoolStrategy(size=min(_READERS, len(paths))),
        )
    tables = [*parts.iter_batches(batch_size=None, batch_format="pyarrow")]
    num_rows = sum(table.num_rows for table in tables)
    if num_rows != len(order_P):
        raise RunError(
            f"{len(order_P):,} rows were planned for and {num_rows:,} are in the files; run the stage again"
        )
    rows = pa.concat_tables(tables)
    return rows.take(np.argsort(rows[_PLACE].to_numpy())).drop_columns(_PLACE)


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
    if not logging.getLogger().isEnabledFor(logging.INFO):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return context
