"""The files that `multicsr evaluate` writes: JSON, CSV, Markdown and LaTeX."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from multicsr.stages.evaluate.comparison import Comparison
from multicsr.stages.evaluate.encoders import Evaluation
from multicsr.stages.evaluate.table import metric_of, since_label, table_rows, verdicts
from multicsr.stages.evaluate.text_tables import latex_table, markdown_table
from multicsr.storage.local_file import require_output, write_output

_COLUMNS = (
    *("task", "kind", "metric", "examples", "encoder", "value", "low", "high"),
    *("reference", "difference", "difference_low", "difference_high", "p", "rank", "similarity"),
    *("since", "since_difference", "since_low", "since_high", "since_p"),
)


def to_json(evaluation: Evaluation) -> str:
    """Return an evaluation as JSON; no number is rounded."""
    return evaluation.model_dump_json(indent=2) + "\n"


def to_csv(evaluation: Evaluation) -> str:
    """Return an evaluation as CSV, with a row for each encoder in each metric; no number is rounded."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for cells in table_rows(evaluation):
        for encoder, cell in zip(evaluation.encoders, cells, strict=True):
            score = cell.score
            of_score = [score.task, score.kind, score.metric, score.num_rows, encoder.label]
            value = [score.value, score.low, score.high]
            first = [*_of_difference(cell.comparison), cell.rank, score.similarity]
            writer.writerow([*of_score, *value, *first, *_of_difference(cell.since)])
    return file.getvalue()


def _of_difference(compared: Comparison | None) -> list[object]:
    if compared is None:
        return [None] * 5
    return [compared.reference, compared.difference, compared.low, compared.high, compared.p]


def to_markdown(evaluation: Evaluation) -> str:
    """Return an evaluation as a table in Markdown, followed by its verdicts."""
    return "\n\n".join([markdown_table([*_lines(evaluation)], 2), *verdicts(evaluation)]) + "\n"


def to_latex(evaluation: Evaluation) -> str:
    """Return an evaluation as a LaTeX table for the package booktabs, with its verdicts as comments."""
    comments = (f"% {verdict}" for verdict in verdicts(evaluation))
    return "\n".join([*comments, latex_table([*_lines(evaluation)], 2)]) + "\n"


_FORMATS: dict[str, Callable[[Evaluation], str]] = {
    ".json": to_json,
    ".csv": to_csv,
    ".md": to_markdown,
    ".tex": to_latex,
}
"""Formats by the ending of a file's name."""


class Output(NamedTuple):
    """A file to write, and its format."""

    path: Path
    to_text: Callable[[Evaluation], str]

    def write(self, evaluation: Evaluation) -> None:
        """Write an evaluation to the file; if that fails, a file that was there before stays as it was.

        Raises:
            RunError: the file cannot be written.
        """
        write_output(self.path, self.to_text(evaluation))


def outputs(json: Path | None, out: Sequence[Path]) -> list[Output]:
    """Check the files that the command line names. This comes before the measurement, which may take hours.

    Args:
        json: file of `--json`, with any ending.
        out: files of `--out`, whose endings name their formats.

    Raises:
        ConfigError: an ending is unknown, or a file cannot be written.
    """
    for path in out:
        require_output(path, "--out", _FORMATS)
    if json is not None:
        require_output(json, "--json")
    return [
        *([Output(json, to_json)] if json is not None else []),
        *(Output(path, _FORMATS[path.suffix]) for path in out),
    ]


def _lines(evaluation: Evaluation) -> Iterator[list[str]]:
    """Yield the header and the rows of a table with a column per encoder and one per difference."""
    first, *others = (encoder.label for encoder in evaluation.encoders)
    differences = [f"{label} - {first}" for label in others]
    since = since_label(evaluation)
    if since:
        differences.append(f"{others[-1]} - {since}")
    yield ["task", "metric", "examples", first, *others, *differences]
    for cells in table_rows(evaluation):
        score = cells[0].score
        yield [
            *(score.task, metric_of(cells), f"{score.num_rows:,}"),
            *(cell.value_text for cell in cells),
            *(cell.difference_text for cell in cells[1:]),
            *([cells[-1].since_text] if since else []),
        ]
