"""Hypotheses that the LLM writes for the premises of Table 12."""

import pyarrow as pa

from multicsr.rows import normalise
from multicsr.stages.score.scorer import column_of
from multicsr.storage.manifest import iter_tables
from multicsr.tools.reproduce.appendix_tables import HYPOTHESES_12, PREMISES_12
from multicsr.tools.reproduce.measures.work import RowMeasurer, TableWork
from multicsr.tools.reproduce.plan import RowPlan, config_of
from multicsr.tools.reproduce.result import MeasuredCell, RowFigures, WrittenExample

_SIDES = ("entailment", "contradiction")


def examples_measurer(work: TableWork) -> RowMeasurer:
    """Return the function that lets the LLM write for the premises of the paper."""

    def measure(plan: RowPlan) -> RowFigures:
        column = column_of(config_of(plan).deciding_score)
        snapshot = work.reader.snapshot(plan, "generate")
        names = ["text", *_SIDES, *(f"{side}_{column}" for side in _SIDES)]
        rows = pa.concat_tables(iter_tables(snapshot.store, snapshot.manifest("scored"), names)).to_pylist()
        written = {row["text"]: row for row in rows}
        examples, cells = [], {}
        for number, premise in enumerate(PREMISES_12, 1):
            row = written.get(normalise(premise), {})
            for place, (letter, side) in enumerate(zip("ab", _SIDES, strict=True)):
                name, score = f"{letter} of premise {number}", row.get(f"{side}_{column}")
                paper = plan.row.numbers.get(name)
                examples.append(
                    WrittenExample(
                        premise=premise,
                        label=side,
                        hypothesis=row.get(side) or "",
                        score=score,
                        paper_hypothesis=HYPOTHESES_12[plan.row.name][number - 1][place],
                        paper_score=paper.value if paper else None,
                    )
                )
                if score is not None:
                    cells[name] = MeasuredCell(values=[score], metric="score from 0 to 5", num_rows=1)
        return RowFigures(num_triplets=len(rows), cells=cells, examples=examples)

    return measure
