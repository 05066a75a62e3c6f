"""The table of an ablation from given results."""

import io
from statistics import stdev

import numpy as np
from rich.console import Console

from multicsr.stages.evaluate.task import Examples, Measurement, Score
from multicsr.tools.ablate.table import Row, table_of


def measured(value: float, task: str = "dev", examples: Examples | None = None) -> list[Measurement]:
    score = Score(task=task, kind="sts", metric="Spearman x 100", value=value, num_rows=40)
    return [Measurement(score, examples)]


def text_of(rows: list[Row]) -> str:
    file = io.StringIO()
    Console(file=file, width=120).print(table_of(rows))
    return file.getvalue()


def test_variants_with_equal_rows_have_their_own_runs():
    """Two variants with as many triplets and the same name of a task are two rows, each with its spread."""
    values = {"one": (60.0, 80.0, 90.0), "two": (50.0, 60.0, 95.0)}
    lines = text_of([Row(name, 100, [measured(v) for v in of]) for name, of in values.items()]).splitlines()
    for name, of in values.items():
        [line] = [line for line in lines if name in line and "100" in line and "±" in line]
        assert f"{sum(of) / 3:.2f} ± {stdev(of):.2f}" in line


def test_one_training_has_no_spread_and_the_difference_is_from_the_first_variant():
    hit_N = np.arange(40) % 4 > 0
    same = Examples("mean", hit_N[:, None].astype(float))
    worse = Examples("mean", (np.arange(40) % 4 > 1)[:, None].astype(float))
    text = text_of(
        [Row("published", 0, [measured(75, examples=same)]), Row("two", 9, [measured(50, examples=worse)])]
    )
    assert "75.00 (1)" in text
    assert "50.00 (2)" in text
    [low, high] = map(float, text.partition("-25.00 [")[2].partition("]")[0].split(", "))
    assert low < -25 < high < 0


def test_a_spread_is_that_of_a_sample():
    text = text_of([Row("one", 1, [measured(60), measured(80)])])
    assert f"70.00 ± {200**0.5:.2f}" in text
