"""Premises that labelled sets have too: nothing is written for them, and their rows are rejected."""

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.rows import Reason
from multicsr.stages.ingest.leaks import find_leaks
from multicsr.stages.ingest.overlap import KnownTexts


def is_clean(premises: pa.ChunkedArray, dropped: KnownTexts) -> pa.BooleanArray:
    """Return for each of N premises whether no labelled set has it."""
    details = find_leaks(dropped, premises.to_pylist())[1]
    return pa.array([detail is None for detail in details], pa.bool_())


def reject_leaked(rows: pa.Table, premises: pa.ChunkedArray, dropped: KnownTexts) -> pa.Table:
    """Return the rows, those whose premise a labelled set has rejected with the reason LEAKED.

    Args:
        rows: [N] rows with the columns `reason` and `detail`.
        premises: [N] the premises of the rows, in the same order.
        dropped: texts of the labelled sets.
    """
    details = pa.array(find_leaks(dropped, premises.to_pylist())[1], pa.string())
    for column, value in (("reason", Reason.LEAKED.value), ("detail", details)):
        changed = pc.if_else(pc.is_valid(details), value, rows[column])
        rows = rows.set_column(rows.column_names.index(column), rows.field(column), changed)
    return rows
