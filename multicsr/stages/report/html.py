"""Conversion of a `Report` to an HTML page: choice of the charts, and rendering of the template."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from multicsr.artifacts import Histogram
from multicsr.errors import RunError
from multicsr.stages.evaluate import table_rows, verdicts
from multicsr.stages.report.charts import Axis, Point, curve, heatmap, histogram, kept_region
from multicsr.stages.report.collect import Report, collect
from multicsr.stages.report.history import charts, latest
from multicsr.stages.report.statistics import NUM_BINS
from multicsr.stages.report.training import TrainingReport
from multicsr.storage.local_file import write_whole
from multicsr.storage.versions import Snapshot

REPORT = "report.html"
"""Name of the report's file in the store."""
REFERENCE_LOWER_AT_MOST = 4.0
"""Limit of `rule: reference`: rows whose lower score is above it are rejected."""
_HERE = Path(__file__).parent


def publish_report(snapshot: Snapshot) -> str:
    """Write the report of a version to its store.

    Returns:
        The URI of the report.

    Raises:
        RunError: the store has no artifact, or one of its files is damaged.
    """
    snapshot.store.write_text(REPORT, to_html(collect(snapshot)))
    return snapshot.store.uri(REPORT)


def write_report(snapshot: Snapshot, out: Path) -> None:
    """Write the report of a version, which may be incomplete, to a local file.

    The write is atomic, except to a pipe or a device; see `write_whole`.

    Raises:
        RunError: the store has no artifact, one of its files is damaged, or `out` cannot be written.
    """
    page = to_html(collect(snapshot))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, page)
    except OSError as error:
        raise RunError(f"cannot write the report {out}: {error.strerror}") from error


def to_html(report: Report) -> str:
    """Render one self-contained page, with inline style and SVG and without scripts."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return environment.get_template("template.html").render(
        report=report,
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        score_charts=_score_charts(report),
        refresh_charts=charts(report.refresh_runs) if report.refresh_runs else [],
        latest_refresh_runs=latest(report.refresh_runs),
        evaluation_rows=table_rows(report.evaluation) if report.evaluation else [],
        verdicts=verdicts(report.evaluation) if report.evaluation else [],
        training_charts=_training_charts(report.training, report.sigma) if report.training else [],
    )


def _score_charts(report: Report) -> list[tuple[str, Markup]]:
    """Return pairs (caption, chart) of the scores, with the thresholds and the region of kept rows."""
    scores, rule = report.scores, report.curation
    if scores.num_rows == 0:
        return []
    edges = np.linspace(0, 5, NUM_BINS + 1).tolist()
    return [
        (
            "a, the score of the entailment",
            histogram(
                "Histogram of a, the score of premise and entailment",
                "a",
                edges,
                scores.kept_a.tolist(),
                scores.rejected_a.tolist(),
                ("alpha", rule.alpha) if rule else None,
            ),
        ),
        (
            "b, the score of the contradiction",
            histogram(
                "Histogram of b, the score of premise and contradiction",
                "b",
                edges,
                scores.kept_b.tolist(),
                scores.rejected_b.tolist(),
                ("beta", rule.beta) if rule else None,
            ),
        ),
        (
            "rows by a and b" + ("; kept inside the dashed line" if rule else ""),
            heatmap("Rows by a and b", Axis("b", 0, 5), Axis("a", 0, 5), scores.cells_AB.T, _regions(report)),
        ),
    ]


def _regions(report: Report) -> list[list[Point]]:
    """Return the regions of kept rows as polygons of points (b, a)."""
    rule = report.curation
    if rule is None:
        return []
    if rule.rule == "paper":
        region = kept_region(rule.alpha, rule.beta, rule.gamma)
    else:
        region = kept_region(rule.alpha, min(rule.beta, REFERENCE_LOWER_AT_MOST), 0)
    return [[(b, a) for a, b in region]]


def _training_charts(training: TrainingReport, sigma: float | None) -> list[tuple[str, Markup]]:
    """Return pairs (caption, chart) of loss, dev metric and mask rate by step, and of the mask's cosines."""
    charts = []
    if training.steps:
        loss = [(float(step.step), step.loss) for step in training.steps]
        charts.append(("Loss", curve("Training loss by step", "step", "loss", loss)))
    if training.dev:
        points = [(float(point.step), point.dev) for point in training.dev]
        best = (float(training.best.step), training.best.dev) if training.best else None
        charts.append(
            (_dev_caption(training), curve("Dev metric by step", "step", "dev, x 100", points, best))
        )
    if training.merges is not None:
        merged = [(each.weight, each.dev) for each in training.merges.candidates]
        chosen = (training.merges.chosen, training.merges.winner.dev)
        on = training.merges.chosen_on
        chart = curve(
            f"Score on {on} by share of trained parameters", "share of trained parameters", on, merged, chosen
        )
        charts.append(("Merges with the encoder as it was; the chosen one is marked", chart))
    if training.steps and sigma is not None:
        masked = [(float(step.step), 100 * step.masked) for step in training.steps]
        charts.append(("Cells removed by the mask", curve("Mask rate by step", "step", "% of cells", masked)))
    if training.similarities is not None and any(training.similarities.counts) and sigma is not None:
        charts.append(_mask_chart(training.similarities, sigma))
    return charts


def _dev_caption(training: TrainingReport) -> str:
    """Return the best score while training, the score before, and what of both was published."""
    best, first, merges = training.best, training.dev[0], training.merges
    before = f"; before the training {first.dev:.2f}" if first.step == 0 else ""
    if best is None:
        return f"Score on dev while training{before}"
    caption = f"Score on dev while training: best {best.dev:.2f} at step {best.step:,}{before}"
    if merges is None:
        return f"{caption}; published: step {best.step:,}"
    what: dict[float, str] = {0: "the encoder as it was", 1: f"step {best.step:,}"}
    name = what.get(merges.chosen, f"a merge of both, {merges.chosen:.0%} trained")
    return f"{caption}; published: {name}, {merges.winner.dev:.2f}"


def _mask_chart(cosines: Histogram, sigma: float) -> tuple[str, Markup]:
    """Draw a histogram of the cosines that the mask compared with sigma, without empty bins at the left."""
    filled = [index for index, count in enumerate(cosines.counts) if count]
    edges, counts = cosines.edges[filled[0] :], cosines.counts[filled[0] :]
    masked = [count if (low + high) / 2 >= sigma else 0 for low, high, count in _bins(edges, counts)]
    kept = [count - removed for count, removed in zip(counts, masked, strict=True)]
    chart = histogram(
        "Cosines of premises with other rows' hypotheses under the mask model",
        "cosine under P",
        edges,
        kept,
        masked,
        ("sigma", sigma),
        "cells",
    )
    return f"Other rows' hypotheses; from sigma on removed: {sum(masked):,} of {sum(counts):,} cells", chart


def _bins(edges: Sequence[float], counts: Sequence[int]) -> Iterator[tuple[float, float, int]]:
    return zip(edges[:-1], edges[1:], counts, strict=True)
