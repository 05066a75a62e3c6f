"""A table of the paper for the terminal and for files: measured figures, and apart from them the paper's."""

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from multicsr.stages.evaluate.text_tables import latex_table, markdown_table
from multicsr.stages.report.charts import lines, standalone
from multicsr.tools.reproduce.result import MeasuredCell, ReproducedRow, Reproduction

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table
    from rich.text import Text

_PAPER = " (paper)"
"""End of the name of a column that holds numbers of the paper."""
_TEXTS, _EXAMPLE_TEXTS = 2, 4
"""Number of columns of text in the table of figures, and in that of examples."""
_CSV = (
    *("row", "group", "column", "metric", "mean", "spread", "trainings", "examples"),
    *("difference", "difference_low", "difference_high", "paper", "reason"),
)


class ReproductionTable:
    """A table of the paper for the terminal: as the paper has it where that fits, else a line a figure."""

    def __init__(self, result: Reproduction) -> None:
        """Take the result; the table is made when it is printed."""
        self._result = result

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Table | Text]":
        """Yield the table, its examples, and the lines below it."""
        from rich.text import Text

        table = _rich_table(self._result, figure_lines(self._result), _TEXTS)
        fits = console.measure(table, options=options.update(max_width=10_000)).maximum <= options.max_width
        yield table if fits else _rich_table(self._result, long_lines(self._result), _TEXTS)
        if examples := example_lines(self._result):
            yield _rich_table(self._result, examples, _EXAMPLE_TEXTS)
        yield from map(Text, remarks(self._result))


def _rich_table(result: Reproduction, texts: list[list[str]], num_texts: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    title = f"{result.name}, scale {result.scale}: {result.title}"
    table = Table(title=Text(title), title_justify="left")
    header, *rows = texts
    for number, name in enumerate(header):
        table.add_column(Text(name), justify="left" if number < num_texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def figure_lines(result: Reproduction) -> list[list[str]]:
    """Return header and rows of the table in the paper's layout.

    A column of the paper that nobody measured is empty. The paper's own numbers have columns of their own.
    Scores of examples stand in the table of the examples.
    """
    with_paper = {column for row in result.rows for column in row.paper}
    columns = [] if example_lines(result) else [*result.columns, *result.extra_columns]
    header = ["row", "differs from the row above by", "triplets"]
    for column in columns:
        header += [column, *([f"{column}{_PAPER}"] if column in with_paper else [])]
    rows = []
    group = None
    for row in result.rows:
        if _has_groups(result) and row.group != group:
            group = row.group
            rows.append([f"[{group}]", *[""] * (len(header) - 1)])
        line = [row.name, row.reason or "; ".join(row.changes), _count(row.figures.num_triplets)]
        for column in columns:
            line.append(_value(row.figures.cells.get(column)))
            if column in with_paper:
                line.append(_number(row.paper.get(column)))
        rows.append(line)
    return [header, *rows]


def long_lines(result: Reproduction) -> list[list[str]]:
    """Return header and rows of a narrow table, with a line for each figure that there is."""
    rows = []
    for row in result.rows:
        name = f"{row.name} [{row.group}]" if _has_groups(result) else row.name
        about = "; ".join(row.changes)
        rows.append([f"{name}\n  {row.reason or about}".rstrip(), "", "", ""])
        for column in (*result.columns, *result.extra_columns):
            cell, paper = row.figures.cells.get(column), row.paper.get(column)
            if cell is not None or paper is not None:
                rows.append(["", column, _value(cell), _number(paper)])
    return [["row", "column", "measured", "paper"], *rows]


def example_lines(result: Reproduction) -> list[list[str]]:
    """Return header and rows of the hypotheses that were written; nothing if the table has none."""
    rows = [
        [
            example.premise,
            f"{row.name}, {example.label}",
            example.hypothesis or "(rejected)",
            example.paper_hypothesis,
            _number(example.score),
            _number(example.paper_score),
        ]
        for row in result.rows
        for example in row.figures.examples
    ]
    header = ["premise", "row", "written", f"written{_PAPER}", "score", f"score{_PAPER}"]
    return [header, *rows] if rows else []


def remarks(result: Reproduction) -> Iterator[str]:
    """Yield the lines below a table: seeds, columns that were not measured, the paper's other numbers."""
    measured = {column for row in result.rows for column in row.figures.cells}
    if any(cell.difference is not None for row in result.rows for cell in row.figures.cells.values()):
        yield "in brackets: difference from the row above, with its interval at 95% over examples and seeds"
    yield (
        f"seeds {', '.join(map(str, result.seeds))}; {result.seconds:,.0f} s, without what was kept from "
        f"before; {result.created}"
    )
    if empty := [column for column in result.columns if column not in measured]:
        yield f"not measured: {', '.join(empty)}"
    if result.extra_columns:
        yield f"no columns of the paper: {', '.join(result.extra_columns)}"
    for number in result.stated:
        yield f"the paper's text: {number.value:g} ({number.quote!r})"
    yield from result.notes


def _has_groups(result: Reproduction) -> bool:
    return len({row.group for row in result.rows}) > 1


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _value(cell: MeasuredCell | None) -> str:
    if cell is None:
        return ""
    text = f"{cell.mean:.2f}" + ("" if cell.spread is None else f" ± {cell.spread:.2f}")
    if cell.difference is None:
        return text
    return f"{text} ({cell.difference:+.2f} [{cell.low:+.2f}, {cell.high:+.2f}])"


def to_json(result: Reproduction) -> str:
    """Return a table as JSON; no number is rounded."""
    return result.model_dump_json(indent=2) + "\n"


def to_markdown(result: Reproduction) -> str:
    """Return a table in Markdown, with the lines below it as a list."""
    parts = [f"**{result.name}, scale {result.scale}: {result.title}**"]
    parts.append(markdown_table(figure_lines(result), _TEXTS))
    if examples := example_lines(result):
        parts.append(markdown_table(examples, _EXAMPLE_TEXTS))
    parts.append("\n".join(f"- {line}" for line in remarks(result)))
    return "\n\n".join(parts) + "\n"


def to_latex(result: Reproduction) -> str:
    """Return a table in LaTeX for the package booktabs, with the lines below it as comments."""
    tables = [latex_table(figure_lines(result), _TEXTS)]
    if examples := example_lines(result):
        tables.append(latex_table(examples, _EXAMPLE_TEXTS))
    return "\n".join([*(f"% {line}" for line in remarks(result)), *tables]) + "\n"


def to_csv(result: Reproduction) -> str:
    """Return a table as CSV with a line for each row and column; of a histogram the points instead."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    points = {name: line for row in result.rows for name, line in row.figures.points.items()}
    if points:
        writer.writerow(("line", result.x_label, "value"))
        writer.writerows((name, x, y) for name, line in points.items() for x, y in line)
        return file.getvalue()
    writer.writerow((*_CSV, *(["line", result.x_label] if result.x_label else [])))
    for row in result.rows:
        for column in (*result.columns, *result.extra_columns):
            place = [row.line, row.x] if result.x_label else []
            writer.writerow([*_csv_line(row, column), *place])
    return file.getvalue()


def _csv_line(row: ReproducedRow, column: str) -> list[object]:
    cell, paper = row.figures.cells.get(column), row.paper.get(column)
    if cell is None:
        return [row.name, row.group, column, *[""] * 8, paper, row.reason]
    figures = [cell.metric, cell.mean, cell.spread, len(cell.values), cell.num_rows]
    figures += [cell.difference, cell.low, cell.high]
    return [row.name, row.group, column, *figures, paper, row.reason]


def to_svg(result: Reproduction) -> str | None:
    """Return a figure as SVG; None if it has no points.

    Where each column is a line, the axis is in percent, and columns of another unit are left out.
    """
    other_units = {column for column in result.columns if not column.endswith("%")}
    points = {name: line for name, line in result.lines().items() if line and name not in other_units}
    if not points:
        return None
    columns = [column for row in result.rows for column in row.figures.cells]
    is_one = len(result.columns) == 1 and not any(row.figures.points for row in result.rows)
    label = columns[0] if is_one and columns else "%"
    return standalone(lines(result.title, result.x_label, label, points))
