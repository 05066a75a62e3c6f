"""From a `Report` to a page: which charts it has, and the template filled in."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from multicsr.errors import RunError
from multicsr.report.charts import Axis, Point, curve, heatmap, histogram, kept_region
from multicsr.report.collect import Report, collect
from multicsr.report.history import charts, latest
from multicsr.report.seen import NUM_BINS
from multicsr.report.training import Training
from multicsr.train.log import Histogram
from multicsr.versions import Rooms

REPORT = "report.html"
"""In the store."""
REFERENCE_LOWER_AT_MOST = 4.0
_HERE = Path(__file__).parent


def publish_report(rooms: Rooms) -> str:
    """Write the report of a version to its store; returns where it is. Errors as `write_report`."""
    rooms.store.write_text(REPORT, to_html(collect(rooms)))
    return rooms.store.uri(REPORT)


def write_report(rooms: Rooms, out: Path) -> None:
    """Write the report of a version, as far as it has come, to a local file, whole or not at all.

    Raises:
        RunError: nothing was made in this store, a file of it is damaged, or `out` cannot be written.
    """
    page = to_html(collect(rooms))
    partial = out.with_name(f"{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, out)
    except OSError as error:
        raise RunError(f"cannot write the report {out}: {error.strerror}") from error


def to_html(report: Report) -> str:
    """One self-contained page: inline style and SVG, no script."""
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
        night_charts=charts(report.nights) if report.nights else [],
        latest_nights=latest(report.nights),
        training_charts=_training_charts(report.training, report.sigma) if report.training else [],
    )


def _score_charts(report: Report) -> list[tuple[str, Markup]]:
    """(caption, chart) of the scores and of how they meet the thresholds."""
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
    """Where rows are kept, as polygons of (b, a)."""
    rule = report.curation
    if rule is None:
        return []
    if rule.rule == "paper":
        region = kept_region(rule.alpha, rule.beta, rule.gamma)
    else:
        region = kept_region(rule.alpha, min(rule.beta, REFERENCE_LOWER_AT_MOST), 0)
    return [[(b, a) for a, b in region]]


def _training_charts(training: Training, sigma: float | None) -> list[tuple[str, Markup]]:
    """(caption, chart) of loss, dev metric and mask rate by step, and of what the mask saw."""
    charts = []
    if training.steps:
        loss = [(float(step.step), step.loss) for step in training.steps]
        charts.append(("Loss", curve("Training loss by step", "step", "loss", loss)))
    if training.dev:
        points = [(float(point.step), point.dev) for point in training.dev]
        best = (float(training.best.step), training.best.dev) if training.best else None
        caption = f"Dev metric; best {best[1]:.4g} at step {best[0]:g}" if best else "Dev metric"
        charts.append((caption, curve("Dev metric by step", "step", "dev, x 100", points, best)))
    if training.steps and sigma is not None:
        masked = [(float(step.step), 100 * step.masked) for step in training.steps]
        charts.append(("Cells removed by the mask", curve("Mask rate by step", "step", "% of cells", masked)))
    if training.similarities is not None and any(training.similarities.counts) and sigma is not None:
        charts.append(_mask_chart(training.similarities, sigma))
    return charts


def _mask_chart(seen: Histogram, sigma: float) -> tuple[str, Markup]:
    """Cosines that the mask compared with sigma, without the empty bins at the left."""
    filled = [index for index, count in enumerate(seen.counts) if count]
    edges, counts = seen.edges[filled[0] :], seen.counts[filled[0] :]
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
