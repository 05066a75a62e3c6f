"""Figures of what an LLM wrote, without a training (Figure 5)."""

import numpy as np
import pyarrow as pa

from multicsr.errors import NothingKept
from multicsr.stages.curate.separation import Separation, count_separation
from multicsr.stages.score.scorer import column_of
from multicsr.storage.manifest import iter_tables
from multicsr.tools.reproduce.measures.work import RowMeasurer, TableWork
from multicsr.tools.reproduce.plan import RowPlan, config_of
from multicsr.tools.reproduce.result import MeasuredCell, RowFigures


def curation_measurer(work: TableWork) -> RowMeasurer:
    """Return the function that lets the LLM write and score, and measures the scores of a row."""

    def measure(plan: RowPlan) -> RowFigures:
        config = config_of(plan)
        column = column_of(config.deciding_score)
        names = [f"{side}_{column}" for side in ("entailment", "contradiction")]
        snapshot = work.reader.snapshot(plan, "generate")
        scored = snapshot.manifest("scored")
        rows = pa.concat_tables(iter_tables(snapshot.store, scored, names))
        a_N, b_N = (np.asarray(rows[name].to_numpy(zero_copy_only=False), dtype=np.float64) for name in names)
        try:
            kept = work.reader.snapshot(plan, "curate").manifest("curated").rows_out
        except NothingKept:
            kept = 0
        figures = {
            "kept, %": 100 * kept / scored.rows_in,
            "rejected as written, %": 100 * (scored.rows_in - scored.rows_out) / scored.rows_in,
        }
        if separation := Separation.from_counters(count_separation(a_N, b_N)):
            figures |= {
                "a > b, %": 100 * separation.share,
                "mean a": float(np.nanmean(a_N)),
                "mean b": float(np.nanmean(b_N)),
            }
        columns = [column.name for column in work.entry.columns if column.name in figures]
        return RowFigures(
            num_triplets=scored.rows_out,
            cells={
                name: MeasuredCell(values=[figures[name]], metric=name, num_rows=scored.rows_in)
                for name in columns
            },
        )

    return measure
