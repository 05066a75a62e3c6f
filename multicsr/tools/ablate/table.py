"""The table of an ablation: means and spreads over seeds, differences, shared ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from multicsr.stages.evaluate.comparison import resampled_scores
from multicsr.stages.evaluate.over_seeds import SeededDifference, SeededScores, difference_over_seeds
from multicsr.stages.evaluate.ranking import shared_ranks
from multicsr.stages.evaluate.statistics import Floats
from multicsr.stages.evaluate.task import Measurement

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Row:
    """The results of one variant."""

    name: str
    num_triplets: int
    results: Sequence[Sequence[Measurement]]
    """Main results on all tasks of each training."""


def table_of(rows: Sequence[Row]) -> "Table":
    """Return a table with a row for each variant and a column for each task.

    A cell has mean, standard deviation over the trainings and rank, and below them the difference from the
    first variant with its interval over examples and seeds.
    """
    from rich.table import Table

    table = Table(
        title="Ablation: mean ± standard deviation over seeds (rank)",
        title_justify="left",
        caption=f"Second line: difference from {rows[0].name}, with its interval at 95% over examples and "
        "seeds. Variants that these cannot distinguish share a rank.",
        caption_justify="left",
    )
    table.add_column("trained on")
    table.add_column("triplets", justify="right")
    columns = []
    for number, measurement in enumerate(rows[0].results[0]):
        score = measurement.score
        table.add_column(f"{score.task}\n{score.metric}", justify="right", no_wrap=True)
        columns.append(_cells([[result[number] for result in row.results] for row in rows]))
    for row, *cells in zip(rows, *columns, strict=True):
        table.add_row(row.name, f"{row.num_triplets:,}" if row.num_triplets else "", *cells)
    return table


def _cells(measurements: Sequence[Sequence[Measurement]]) -> list[str]:
    """Return the cells of one task, from the trainings of each variant."""
    values = [np.array([each.score.value for each in of_variant]) for of_variant in measurements]
    cells = [_mean_and_spread(value_S) for value_S in values]
    resampled = [known for of_variant in measurements if (known := resampled_scores(of_variant)) is not None]
    if len(resampled) < len(cells):
        return cells
    scores = [SeededScores(*each) for each in zip(values, resampled, strict=True)]
    num_examples = measurements[0][0].score.num_rows
    p_values = {
        (first, second): difference_over_seeds(scores[first], scores[second], num_examples).p
        for first, second in combinations(range(len(scores)), 2)
    }
    ranks = shared_ranks([each.mean for each in scores], p_values)
    differences = [difference_over_seeds(each, scores[0], num_examples) for each in scores[1:]]
    return [
        f"{cell} ({rank}){below}"
        for cell, rank, below in zip(cells, ranks, ["", *map(_below, differences)], strict=True)
    ]


def _mean_and_spread(value_S: Floats) -> str:
    mean = f"{value_S.mean():.2f}"
    return mean if len(value_S) == 1 else f"{mean} ± {value_S.std(ddof=1):.2f}"


def _below(found: SeededDifference) -> str:
    return f"\n{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
