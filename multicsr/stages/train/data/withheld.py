"""The rows that are kept from training, each with its reason."""

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.rows import Reason
from multicsr.stages.curate.held_out import is_held_out
from multicsr.stages.ingest.leaks import Leaks, find_leaks
from multicsr.stages.ingest.overlap import KnownTexts


def withheld_reasons(
    rows: pa.Table, held_out: float, known: KnownTexts | None = None, drop_leaks: bool = False
) -> tuple[pa.StringArray, Leaks]:
    """Return the reason for which each of R rows is not trained on, null where it is, and the leaks.

    Args:
        rows: ids of the rows, and the sentences that the objective trains on.
        held_out: share of the rows that is held out for the evaluation; those are no leaks.
        known: texts of the labelled sets; None: no leak is looked for.
        drop_leaks: keep rows from training with a sentence that a set has too.
    """
    held_out_R = pa.array(is_held_out(rows["row_id"].to_pylist(), held_out), pa.bool_())
    reason_R = pc.if_else(held_out_R, Reason.HELD_OUT.value, pa.scalar(None, pa.string()))
    if known is None:
        return reason_R, Leaks()
    trained_on = rows.filter(pc.invert(held_out_R)).drop_columns("row_id")
    leaks, details = find_leaks(known, *(column.to_pylist() for column in trained_on.columns))
    if drop_leaks:
        leaked = [Reason.LEAKED.value if detail else None for detail in details]
        reason_R = pc.replace_with_mask(reason_R, pc.invert(held_out_R), pa.array(leaked, pa.string()))
    return reason_R, leaks
