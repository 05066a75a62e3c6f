"""Charts as inline SVG: pure functions from numbers to markup. Colours come from the page's style sheet.

All charts are 360 units wide. On a phone, a unit is about one pixel, so the text stays readable.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 14, 44
_MOST_POINTS = 300
"""Maximum number of points of a curve; a longer one is thinned."""

Point = tuple[float, float]
"""A pair (x, y) in values of the axes."""


@dataclass(frozen=True)
class Axis:
    """One axis of a chart: its label and the range of its values."""

    label: str
    low: float
    high: float

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values inside the axis, whose distance is 1, 2 or 5 times a power of ten.

        Args:
            about: approximate number of intervals on the axis.
        """
        step = _round_step((self.high - self.low) / about)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 10) for index in range(first, last + 1)]


@dataclass(frozen=True)
class Frame:
    """Mapping from values to positions in a chart, in SVG units; x grows to the right, y upwards."""

    x: Axis
    y: Axis

    def at_x(self, value: float) -> float:
        """Return the distance of a value from the left edge, in SVG units."""
        share = (value - self.x.low) / (self.x.high - self.x.low)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 2)

    def at_y(self, value: float) -> float:
        """Return the distance of a value from the upper edge, in SVG units."""
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 2)


def histogram(
    title: str,
    x_label: str,
    edges: Sequence[float],
    kept: Sequence[int],
    rejected: Sequence[int],
    threshold: tuple[str, float] | None = None,
    unit: str = "rows",
) -> Markup:
    """Draw a histogram of stacked bars: kept amounts below, rejected ones on top.

    Args:
        title: accessible name of the chart.
        x_label: label of the x axis.
        edges: E + 1 edges of E bins.
        kept: kept amount in each bin.
        rejected: rejected amount in each bin.
        threshold: name and value of a line to draw.
        unit: the unit that is counted, the label of the y axis.
    """
    top = max(1, *(k + r for k, r in zip(kept, rejected, strict=True)))
    frame = Frame(Axis(x_label, edges[0], edges[-1]), Axis(unit, 0, top * 1.05))
    parts = [*_axes(frame)]
    for left, right, num_kept, num_rejected in zip(edges[:-1], edges[1:], kept, rejected, strict=True):
        if num_kept + num_rejected == 0:
            continue
        tip = f"{left:g} to {right:g}: {num_kept:,} kept, {num_rejected:,} rejected"
        bars = _bar(frame, left, right, 0, num_kept, "kept")
        bars += _bar(frame, left, right, num_kept, num_kept + num_rejected, "rejected")
        parts.append(Markup("<g>{}{}</g>").format(_tip(tip), bars))
    if threshold is not None:
        parts.append(_threshold(frame, *threshold))
    return _svg(title, parts)


def heatmap(
    title: str, x: Axis, y: Axis, counts_XY: np.ndarray, regions: Sequence[Sequence[Point]] = ()
) -> Markup:
    """Draw the number of rows per cell, darker for more (square-root scale), with outlined regions.

    Args:
        title: accessible name of the chart.
        x, y: the axes; the cells divide them evenly.
        counts_XY: rows in each cell, first index along x.
        regions: polygons in values of the axes.
    """
    frame = Frame(x, y)
    xs = np.linspace(x.low, x.high, counts_XY.shape[0] + 1)
    ys = np.linspace(y.low, y.high, counts_XY.shape[1] + 1)
    most = max(1, int(counts_XY.max()))
    parts = [_region(frame, corners, "region") for corners in regions]
    for i, j in np.argwhere(counts_XY > 0):
        count = int(counts_XY[i, j])
        left, upper = frame.at_x(xs[i]), frame.at_y(ys[j + 1])
        tip = f"{x.label} {xs[i]:g} to {xs[i + 1]:g}, {y.label} {ys[j]:g} to {ys[j + 1]:g}: {count:,} rows"
        parts.append(
            Markup(
                '<rect class="cell" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}">{}</rect>'
            ).format(
                left,
                upper,
                round(frame.at_x(xs[i + 1]) - left, 2),
                round(frame.at_y(ys[j]) - upper, 2),
                round(0.12 + 0.88 * math.sqrt(count / most), 3),
                _tip(tip),
            )
        )
    parts += [_region(frame, corners, "outline") for corners in regions]
    return _svg(title, [*parts, *_axes(frame, grid=False)])


def curve(
    title: str, x_label: str, y_label: str, points: Sequence[Point], marked: Point | None = None
) -> Markup:
    """Draw a line through points; a line of many points is thinned to means of neighbouring points.

    Args:
        title: accessible name of the chart.
        x_label: label of the x axis.
        y_label: label of the y axis.
        points: (x, y) in the order of x, at least one.
        marked: a point to emphasise.
    """
    drawn = _thinned(points)
    xs, ys = [x for x, _ in points], [y for _, y in drawn] + ([marked[1]] if marked else [])
    margin = 0.08 * (max(ys) - min(ys)) or 0.05 * abs(max(ys)) or 1
    low = max(0.0, min(ys) - margin) if min(ys) >= 0 else min(ys) - margin
    frame = Frame(Axis(x_label, 0, max(1, *xs)), Axis(y_label, low, max(ys) + margin))
    path = " ".join(f"{frame.at_x(x)},{frame.at_y(y)}" for x, y in drawn)
    parts = [*_axes(frame), Markup('<polyline class="line" points="{}"/>').format(path)]
    for x, y in drawn if len(drawn) <= 60 else []:
        tip = _tip(f"{x_label} {x:g}: {y:.4g}")
        parts.append(
            Markup('<circle class="dot" cx="{}" cy="{}" r="2.5">{}</circle>').format(
                frame.at_x(x), frame.at_y(y), tip
            )
        )
    if marked is not None:
        tip = _tip(f"best: {x_label} {marked[0]:g}, {marked[1]:.4g}")
        parts.append(
            Markup('<circle class="best" cx="{}" cy="{}" r="5">{}</circle>').format(
                frame.at_x(marked[0]), frame.at_y(marked[1]), tip
            )
        )
    return _svg(title, parts)


def lines(
    title: str, x_label: str, y_label: str, points: Mapping[str, Sequence[Point]], width: float = 0.7
) -> Markup:
    """Draw several lines through their points, each with its name at its last point.

    Args:
        title: accessible name of the chart.
        x_label: label of the x axis.
        y_label: label of the y axis.
        points: (x, y) in the order of x, at least one, by the name of the line.
        width: share of the width that the lines take; the names stand in the rest.
    """
    xs = [x for line in points.values() for x, _ in line]
    ys = [y for line in points.values() for _, y in line]
    margin = 0.08 * (max(ys) - min(ys)) or 0.05 * abs(max(ys)) or 1
    right = min(xs) + ((max(xs) - min(xs)) or 1) / width
    frame = Frame(Axis(x_label, min(xs), right), Axis(y_label, min(ys) - margin, max(ys) + margin))
    parts = [*_axes(frame)]
    for name, line in points.items():
        path = " ".join(f"{frame.at_x(x)},{frame.at_y(y)}" for x, y in line)
        parts.append(Markup('<polyline class="line" points="{}"/>').format(path))
        for x, y in line:
            parts.append(
                Markup('<circle class="dot" cx="{}" cy="{}" r="2.5">{}</circle>').format(
                    frame.at_x(x), frame.at_y(y), _tip(f"{name}: {x_label} {x:g}, {y:.4g}")
                )
            )
        x, y = line[-1]
        parts.append(_text(frame.at_x(x) + 6, frame.at_y(y) + 4, name, "start"))
    return _svg(title, parts)


def standalone(chart: Markup) -> str:
    """Return a chart as an SVG file of its own, with the colours that the report's page gives it."""
    style = (
        "svg{background:#fff}.label{font:12px sans-serif;fill:#5b6670}.axis{stroke:#5b6670;fill:none}"
        ".grid{stroke:#e2e0db}.line{fill:none;stroke:#2b6a99;stroke-width:1.8}.dot,.kept{fill:#2b6a99}"
    )
    head, rest = str(chart).split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}\n'


def kept_region(alpha: float, beta: float, gamma: float) -> list[Point]:
    """Return the corners of {a >= alpha, b <= beta, a >= b + gamma} in [0, 5] x [0, 5] (MultiCSR Eq. 4)."""
    corners: list[Point] = [(0, 0), (5, 0), (5, 5), (0, 5)]
    # Each half plane as the signed distance of (a, b) from its edge, positive where rows are kept.
    for a, b, constant in ((1, 0, -alpha), (0, -1, beta), (1, -1, -gamma)):
        corners = list(_clipped(corners, a, b, constant))
    return corners


def _clipped(corners: Sequence[Point], a: float, b: float, constant: float) -> Iterator[Point]:
    """Yield the part of a convex polygon where a x + b y + constant >= 0 (Sutherland-Hodgman algorithm)."""
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], *corners[:1]], strict=True):
        d0, d1 = a * x0 + b * y0 + constant, a * x1 + b * y1 + constant
        if d0 >= 0:
            yield x0, y0
        if (d0 > 0 > d1) or (d0 < 0 < d1):
            share = d0 / (d0 - d1)
            yield x0 + share * (x1 - x0), y0 + share * (y1 - y0)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def _thinned(points: Sequence[Point]) -> list[Point]:
    width = math.ceil(len(points) / _MOST_POINTS)
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _svg(title: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(parts)
    )


def _axes(frame: Frame, grid: bool = True) -> Iterator[Markup]:
    left, right, upper, lower = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
    for value in frame.y.ticks():
        y = frame.at_y(value)
        if grid:
            yield Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(left, right, y, y)
        yield _text(left - 6, y + 4, _short(value), "end")
    for value in frame.x.ticks():
        x = frame.at_x(value)
        yield Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x, x, lower, lower + 4)
        yield _text(x, lower + 17, _short(value), "middle")
    yield Markup('<path class="axis" d="M{} {}V{}H{}"/>').format(left, upper, lower, right)
    yield _text((left + right) / 2, HEIGHT - 8, frame.x.label, "middle")
    yield Markup(
        '<text class="label" text-anchor="middle" transform="translate(12 {}) rotate(-90)">{}</text>'
    ).format((upper + lower) / 2, frame.y.label)


def _bar(frame: Frame, left: float, right: float, low: float, high: float, kind: str) -> Markup:
    if high == low:
        return Markup("")
    x, y = frame.at_x(left), frame.at_y(high)
    width, height = frame.at_x(right) - x - 0.6, frame.at_y(low) - y
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        kind, x, y, round(width, 2), round(height, 2)
    )


def _threshold(frame: Frame, name: str, value: float) -> Markup:
    x = frame.at_x(value)
    near_right = x > WIDTH * 0.75
    label = _text(
        x + (-5 if near_right else 5), _TOP + 8, f"{name} = {value:g}", "end" if near_right else "start"
    )
    return Markup('<line class="threshold" x1="{}" x2="{}" y1="{}" y2="{}"/>{}').format(
        x, x, _TOP, HEIGHT - _BOTTOM, label
    )


def _region(frame: Frame, corners: Sequence[Point], kind: str) -> Markup:
    path = " ".join(f"{frame.at_x(x)},{frame.at_y(y)}" for x, y in corners)
    return Markup('<polygon class="{}" points="{}"/>').format(kind, path)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text class="label" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        round(x, 2), round(y, 2), anchor, text
    )


def _tip(text: str) -> Markup:
    return Markup("<title>{}</title>").format(escape(text))


def _short(value: float) -> str:
    """Return the number of a tick in few characters, such as 12k for 12000."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"
