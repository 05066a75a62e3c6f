"""An evaluation as a table, and in one sentence per encoder."""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

from multicsr.stages.evaluate.comparison import Comparison
from multicsr.stages.evaluate.encoders import Evaluation, Measured
from multicsr.stages.evaluate.kinds.alignment import PositivePairsTask
from multicsr.stages.evaluate.ranking import LEVEL, holm
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Score

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

_COLOURS = {"up": "green", "down": "red", "": "dim"}
"""Colour of a difference by its direction."""
_LABEL, _WHOLE = 24, 10_000
"""Characters in a line of an encoder's name: as wide as a difference with its interval, or all of it."""
_NAMED = 6
"""Maximum number of tasks that a sentence names for each verdict."""


class Cell(NamedTuple):
    """The result of one encoder in one row."""

    score: Score
    difference: float
    """Difference from the first encoder; 0 where the metrics are of different similarities."""
    comparison: Comparison | None
    """Comparison with the first encoder; None for the first one, and where there are no examples."""
    since: Comparison | None
    """Comparison with the encoder that training started from, if that is another than the first."""
    rank: int | None
    """None: there are fewer than three encoders, or no examples."""

    @property
    def value_text(self) -> str:
        """Return the value with the rank, as in `84.90 (2)`."""
        return f"{self.score.value:.2f}" if self.rank is None else f"{self.score.value:.2f} ({self.rank})"

    @property
    def difference_text(self) -> str:
        """Return the difference from the first encoder with its interval; an empty text if there is none."""
        if self.comparison is not None:
            return _difference(self.comparison)
        return _signed(self.difference) if self.difference else ""

    @property
    def since_text(self) -> str:
        """Return the difference from the encoder that training started from; empty if it is the first."""
        return _difference(self.since) if self.since is not None else ""

    @property
    def direction(self) -> str:
        """Return `up` or `down` if the interval of the difference leaves out 0, else an empty text."""
        return _direction(self.comparison)

    @property
    def since_direction(self) -> str:
        """Return the same of the difference from the encoder that training started from."""
        return _direction(self.since)


def _difference(compared: Comparison) -> str:
    return f"{_signed(compared.difference)} [{_signed(compared.low)}, {_signed(compared.high)}]"


def _signed(value: float) -> str:
    """Return a value with its sign; +0.00 for one that is 0 when it is rounded."""
    return f"{round(value, 2) + 0.0:+.2f}"


def _direction(compared: Comparison | None) -> str:
    if compared is None:
        return ""
    return "up" if compared.low > 0 else "down" if compared.high < 0 else ""


def table_rows(evaluation: Evaluation) -> Iterator[list[Cell]]:
    """Yield the rows of the table, one per metric of a task and one per average; a cell per encoder."""
    first = evaluation.encoders[0].label
    compared = {
        (each.task, each.metric, each.encoder, each.reference == first): each
        for each in evaluation.comparisons
    }
    ranked = {(each.task, each.metric): each.ranks for each in evaluation.rankings}
    labels = [encoder.label for encoder in evaluation.encoders]
    columns = [[*encoder.scores, *encoder.averages] for encoder in evaluation.encoders]
    for scores in zip(*columns, strict=True):
        task, metric = scores[0].task, scores[0].metric
        ranks = ranked.get((task, metric), {}) if len(labels) > 2 else {}
        yield [
            Cell(
                score,
                score.value - scores[0].value if score.metric == metric else 0.0,
                compared.get((task, metric, label, True)),
                compared.get((task, metric, label, False)),
                ranks.get(label),
            )
            for label, score in zip(labels, scores, strict=True)
        ]


class EvaluationTable:
    """An evaluation for the terminal: the first of its tables whose numbers are whole in the width."""

    def __init__(self, evaluation: Evaluation) -> None:
        """Take the evaluation; the table is made when it is printed."""
        self._evaluation = evaluation

    def __rich_measure__(self, console: "Console", options: "ConsoleOptions") -> "Measurement":
        """Return the widths of the table with whole names, which a file gets."""
        return console.measure(_by_columns(self._evaluation, _WHOLE), options=options)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> Iterator["Table"]:
        """Yield a column per encoder, then one with names on several lines, then a row per encoder."""
        unbounded = options.update(max_width=_WHOLE)
        for width in (_WHOLE, _LABEL):
            table = _by_columns(self._evaluation, width)
            if console.measure(table, options=unbounded).minimum <= options.max_width:
                yield table
                return
        yield _by_rows(self._evaluation)


def render(evaluation: Evaluation) -> EvaluationTable:
    """Return a table for the terminal with the results of every encoder in every metric.

    Each encoder after the first is shown with its difference from the first and the interval of it.
    """
    return EvaluationTable(evaluation)


def _by_columns(evaluation: Evaluation, width: int) -> "Table":
    """Return a table with a column per encoder, whose name has lines of at most `width` characters."""
    table = _table(evaluation)
    for encoder in evaluation.encoders:
        table.add_column("\n".join(wrap(encoder.label, width)), justify="right", no_wrap=True)
    for cells in table_rows(evaluation):
        table.add_row(_title(cells), *(_text(cell, cell.value_text) for cell in cells))
    return table


def _by_rows(evaluation: Evaluation) -> "Table":
    """Return a table with a row per encoder under each metric."""
    table = _table(evaluation)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("difference", justify="right", no_wrap=True)
    for cells in table_rows(evaluation):
        table.add_row(_title(cells), "", "")
        for encoder, cell in zip(evaluation.encoders, cells, strict=True):
            table.add_row(encoder.label, cell.value_text, _text(cell))
        table.add_section()
    return table


def _table(evaluation: Evaluation) -> "Table":
    """Return a table that has the first column alone, of tasks."""
    from rich.table import Table

    table = Table(
        title="Evaluation", title_justify="left", caption=_caption(evaluation), caption_justify="left"
    )
    table.add_column("task: metric, examples", overflow="fold")
    return table


def _title(cells: Sequence[Cell]) -> str:
    return f"{cells[0].score.task}\n{metric_of(cells)}, {cells[0].score.num_rows:,}"


def metric_of(cells: Sequence[Cell]) -> str:
    """Return the name of the metric of a row; several names where it is a threshold of a similarity."""
    return " / ".join(dict.fromkeys(cell.score.metric for cell in cells))


def verdicts(evaluation: Evaluation) -> list[str]:
    """Return a sentence for each encoder after the first: where it helps, hurts, or makes no difference.

    The main metric of each task counts; alignment does not, as it is best where all vectors are equal. A
    difference is one that the paired test finds at 5%, with Holm's correction over the tasks. Where training
    started from a variant of the first encoder, the trained one is compared with both.
    """
    main = {
        (score.task, score.metric)
        for encoder in evaluation.encoders
        for score in encoder.main_scores()
        if score.kind != PositivePairsTask.kind
    }
    counted = [each for each in evaluation.comparisons if (each.task, each.metric) in main]
    labels = [encoder.label for encoder in evaluation.encoders[1:]]
    return [_verdict([each for each in counted if each.encoder == label]) for label in labels if counted]


def _verdict(comparisons: Sequence[Comparison]) -> str:
    """Return what an encoder helps and hurts, compared with each of its references."""
    references = dict.fromkeys(each.reference for each in comparisons)
    found = [_against([each for each in comparisons if each.reference == name]) for name in references]
    return f"{comparisons[0].encoder}, compared with {'. Compared with '.join(found)}."


def _against(comparisons: Sequence[Comparison]) -> str:
    """Return the reference of some comparisons, and what an encoder helps and hurts compared with it."""
    corrected = holm({each.task: each.p for each in comparisons})
    found = [each for each in comparisons if corrected[each.task] <= LEVEL]
    helped = [each for each in found if each.difference > 0]
    hurt = [each for each in found if each.difference < 0]
    same = [each for each in comparisons if each not in found]
    parts = [
        f"helps on {_listed(helped)}" if helped else "",
        f"hurts on {_listed(hurt)}" if hurt else "",
        f"makes no difference that these examples can show on {_listed(same)}" if same else "",
    ]
    return f"{comparisons[0].reference}: {'; '.join(filter(None, parts))}"


def _listed(comparisons: Sequence[Comparison]) -> str:
    """Return the names of tasks with their differences, as words."""
    names = [f"{each.task} ({_signed(each.difference)})" for each in comparisons]
    if len(names) > _NAMED:
        names[_NAMED - 1 :] = [f"{len(names) - _NAMED + 1} more tasks"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _caption(evaluation: Evaluation) -> str | None:
    """Return what the cells of the table hold, and which encoders are compared by another similarity."""
    parts = [_describe_cells(evaluation), *map(_describe_similarity, evaluation.encoders)]
    return " ".join(filter(None, parts)) or None


def _describe_similarity(encoder: Measured) -> str:
    """Return an encoder's own similarity and the kinds that ignore it; an empty text if it is cosine."""
    own = {score.similarity for score in encoder.scores} - {None, Similarity.COSINE}
    compared = {score.kind for score in encoder.scores if score.similarity}
    others = [kind for kind in dict.fromkeys(each.kind for each in encoder.scores) if kind not in compared]
    without = f", but for {', '.join(others)}, which ignore it" if others else ""
    return f"{encoder.label}: measured by its own similarity, {own.pop()}{without}." if own else ""


def _describe_cells(evaluation: Evaluation) -> str:
    """Return what the cells of the table hold, if there are several encoders."""
    if len(evaluation.encoders) == 1:
        return ""
    first = evaluation.encoders[0].label
    differences = f"Second line: difference from {first}, with its interval at 95%."
    if since := since_label(evaluation):
        differences += f" Third line: difference from {since}."
    if len(evaluation.encoders) == 2:
        return differences
    return f"{differences} (n): rank; encoders that the examples cannot distinguish share it."


def since_label(evaluation: Evaluation) -> str | None:
    """Return the encoder other than the first with which one is compared, if there is one."""
    first = evaluation.encoders[0].label
    return next((each.reference for each in evaluation.comparisons if each.reference != first), None)


def _text(cell: Cell, *lines: str) -> "Text":
    """Return the text of a cell in the terminal: lines, then its differences in their colours."""
    from rich.text import Text

    shown = [(line, "") for line in lines]
    for difference, direction in (
        (cell.difference_text, cell.direction),
        (cell.since_text, cell.since_direction),
    ):
        if difference:
            shown.append((difference, _COLOURS[direction]))
    return Text("\n").join(Text(line, colour) for line, colour in shown)
