"""The result of a table or figure: what was measured, and apart from it what the paper states."""

from pydantic import JsonValue

from multicsr.artifacts import FileRecord


class MeasuredCell(FileRecord):
    """The figures of one row in one column."""

    values: list[float]
    """Value of each training, or the only one."""
    metric: str = ""
    """Name and scale of the metric."""
    num_rows: int = 0
    """Number of examples that were measured."""
    difference: float | None = None
    """Difference from the row above; None if that has no figures, or there are no examples."""
    low: float | None = None
    """Lower end of its interval at 95%, over examples and trainings."""
    high: float | None = None
    """Upper end of it."""

    @property
    def mean(self) -> float:
        """Return the mean over the trainings."""
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float | None:
        """Return the standard deviation over the trainings; None for one."""
        if len(self.values) < 2:
            return None
        mean = self.mean
        return float((sum((value - mean) ** 2 for value in self.values) / (len(self.values) - 1)) ** 0.5)


class WrittenExample(FileRecord):
    """A hypothesis that the LLM wrote, beside that of the paper."""

    premise: str
    label: str
    """`entailment` or `contradiction`."""
    hypothesis: str
    """Hypothesis that was written; empty if it was rejected."""
    score: float | None
    paper_hypothesis: str
    """Hypothesis of the paper; empty if it has none."""
    paper_score: float | None


class RowFigures(FileRecord):
    """The figures that one row of a table was measured with."""

    num_triplets: int | None = None
    """Number of triplets or premises that the row is trained on."""
    cells: dict[str, MeasuredCell] = {}
    """Figures by column. Columns that were not measured are not in it."""
    points: dict[str, list[tuple[float, float]]] = {}
    """Points of a histogram by the name of its line: centre of a bin, share in percent."""
    examples: list[WrittenExample] = []


class ReproducedRow(FileRecord):
    """A row of a table of the paper."""

    name: str
    group: str
    """Encoder of the paper."""
    changes: list[str]
    """Settings by which it differs from the row above that is run."""
    reason: str
    """Reason for which there are no figures; empty if there are some."""
    failed: bool = False
    """True if the row was run and ended with an error."""
    figures: RowFigures = RowFigures()
    paper: dict[str, float]
    """Numbers of the paper's text by column."""
    line: str = ""
    """Line of a figure that the row is a point of."""
    x: float | None = None
    settings: dict[str, JsonValue] = {}
    """All settings that decide the figures."""


class StatedNumber(FileRecord):
    """A number of the paper's text that belongs to no cell."""

    value: float
    quote: str


class Reproduction(FileRecord):
    """A table or figure of the paper, as far as it was measured."""

    name: str
    title: str
    scale: str
    created: str
    """Time of the end, ISO 8601, UTC."""
    versions: dict[str, str]
    """Versions of the packages that compute results."""
    seeds: list[int]
    seconds: float
    """Wall time; results that were kept are not made again."""
    columns: list[str]
    """Columns of the paper."""
    extra_columns: list[str]
    """Tasks that were measured and are no column of the paper."""
    rows: list[ReproducedRow]
    stated: list[StatedNumber]
    notes: list[str]
    x_label: str = ""

    def failures(self) -> list[ReproducedRow]:
        """Return the rows that ended with an error."""
        return [row for row in self.rows if row.failed]

    def lines(self) -> dict[str, list[tuple[float, float]]]:
        """Return the points of a figure by line: a row is a point, in the first column that was measured."""
        found: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows:
            for name, points in row.figures.points.items():
                found[name] = points
            cells = [*row.figures.cells.items()]
            if row.x is not None and cells:
                for column, cell in cells if self._has_own_lines() else cells[:1]:
                    name = column if self._has_own_lines() else row.line
                    found.setdefault(name, []).append((row.x, cell.mean))
        return found

    def _has_own_lines(self) -> bool:
        """Return True if all points belong to one line and every column of the paper is a line of its own."""
        return len({row.line for row in self.rows if row.line}) == 1 and len(self.columns) > 1
