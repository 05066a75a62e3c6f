import itertools
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from multicsr.stages.report.charts import (
    HEIGHT,
    WIDTH,
    Axis,
    Frame,
    curve,
    heatmap,
    histogram,
    kept_region,
    lines,
    standalone,
)


def elements(svg: str, tag: str, kind: str | None = None) -> list[ET.Element]:
    """Elements of a tag and class; parsing also shows that the markup is well formed."""
    found = ET.fromstring(svg).iter(tag)
    return [element for element in found if kind is None or element.get("class") == kind]


def tip(element: ET.Element) -> str | None:
    return element.findtext("title")


FRAME = Frame(Axis("x", 0, 5), Axis("y", 0, 5))


def test_frame_maps_ends_and_middle():
    left, right = FRAME.at_x(0), FRAME.at_x(5)
    lower, upper = FRAME.at_y(0), FRAME.at_y(5)
    assert 0 < left < right < WIDTH
    assert 0 < upper < lower < HEIGHT
    assert FRAME.at_x(2.5) == pytest.approx((left + right) / 2)
    assert FRAME.at_y(2.5) == pytest.approx((lower + upper) / 2)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 5, [0, 1, 2, 3, 4, 5]),
        (0, 23.1, [0, 5, 10, 15, 20]),
        (-0.3, 0.42, [-0.2, 0, 0.2, 0.4]),
        (71, 79, [72, 74, 76, 78]),
        (0, 1_200_000, [0, 500_000, 1_000_000]),
    ],
)
def test_ticks_are_round_and_inside(low, high, ticks):
    assert Axis("", low, high).ticks() == pytest.approx(ticks)


def test_histogram_stacks_rejected_on_kept_and_names_each_bar():
    svg = histogram("h", "a", [0, 1, 2, 3], [4, 0, 1], [2, 0, 0], ("alpha", 1.5))
    kept, rejected = elements(svg, "rect", "kept"), elements(svg, "rect", "rejected")
    assert (len(kept), len(rejected)) == (2, 1)
    heights = [float(bar.get("height", "")) for bar in (*kept, *rejected)]
    assert heights[0] == pytest.approx(4 * heights[1], abs=0.05)
    assert heights[0] == pytest.approx(2 * heights[2], abs=0.05)
    top_of_rejected = float(rejected[0].get("y", ""))
    assert top_of_rejected + heights[2] == pytest.approx(float(kept[0].get("y", "")), abs=0.05)
    assert [tip(group) for group in elements(svg, "g")] == [
        "0 to 1: 4 kept, 2 rejected",
        "2 to 3: 1 kept, 0 rejected",
    ]
    [line] = elements(svg, "line", "threshold")
    frame = Frame(Axis("a", 0, 3), Axis("rows", 0, 1))
    assert float(line.get("x1", "")) == frame.at_x(1.5)
    assert "alpha = 1.5" in svg


def test_heatmap_puts_each_cell_in_its_place():
    counts = np.zeros((5, 5), dtype=int)
    counts[4, 0], counts[1, 3] = 16, 4
    svg = heatmap("h", Axis("b", 0, 5), Axis("a", 0, 5), counts, [[(0, 0), (5, 0), (5, 5)]])
    light, dark = elements(svg, "rect", "cell")
    assert tip(light) == "b 1 to 2, a 3 to 4: 4 rows"
    assert float(light.get("x", "")) == FRAME.at_x(1)
    assert float(light.get("y", "")) == FRAME.at_y(4)
    assert float(light.get("width", "")) == pytest.approx(FRAME.at_x(2) - FRAME.at_x(1), abs=0.02)
    assert float(dark.get("fill-opacity", "")) == 1
    assert float(light.get("fill-opacity", "")) == pytest.approx(0.12 + 0.88 / 2)
    [outline] = elements(svg, "polygon", "outline")
    assert outline.get("points", "").split()[0] == f"{FRAME.at_x(0)},{FRAME.at_y(0)}"


def test_curve_goes_through_its_points_and_marks_the_best():
    svg = curve("c", "step", "loss", [(10, 1.0), (20, 0.5)], (20, 0.5))
    [line] = elements(svg, "polyline")
    (x0, y0), (x1, y1) = (map(float, pair.split(",")) for pair in line.get("points", "").split())
    assert x1 - x0 == pytest.approx(10 * (x0 - FRAME.at_x(0)) / 10, abs=0.05)
    assert y1 > y0
    [best] = elements(svg, "circle", "best")
    assert (float(best.get("cx", "")), float(best.get("cy", ""))) == (x1, y1)
    assert tip(best) == "best: step 20, 0.5"


@pytest.mark.parametrize("points", [[(1.0, 0.0)], [(0.0, 0.0), (1.0, 0.0)], [(1.0, -2.0), (2.0, 7.0)]])
def test_curve_takes_flat_and_negative_values(points):
    svg = curve("c", "step", "loss", points)
    numbers = [
        float(n) for pair in elements(svg, "polyline")[0].get("points", "").split() for n in pair.split(",")
    ]
    assert all(math.isfinite(number) and 0 <= number <= WIDTH for number in numbers)


def test_long_curves_are_thinned_to_means():
    svg = curve("c", "step", "loss", [(float(step), float(step % 2)) for step in range(1, 10_001)])
    [line] = elements(svg, "polyline")
    points = line.get("points", "").split()
    assert len(points) == math.ceil(10_000 / math.ceil(10_000 / 300))
    assert {point.split(",")[1] for point in points[:-1]} == {points[0].split(",")[1]}


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma"), [(3, 3, 1), (0, 5, 0), (4.5, 0.5, 2), (1, 5, 3), (2, 4, 0.5), (5, 0, 5)]
)
def test_kept_region_is_where_the_rule_keeps(alpha, beta, gamma):
    corners = kept_region(alpha, beta, gamma)

    def inside(a: float, b: float) -> bool:
        """Ray casting, independent of how the polygon was cut."""
        crossings = 0
        for (a0, b0), (a1, b1) in itertools.pairwise([*corners, corners[0]]):
            if (b0 > b) != (b1 > b) and a < a0 + (b - b0) * (a1 - a0) / (b1 - b0):
                crossings += 1
        return crossings % 2 == 1

    for a, b in itertools.product(np.arange(0.03, 5, 0.1), np.arange(0.06, 5, 0.1)):
        assert inside(a, b) == (a >= alpha and b <= beta and a >= b + gamma)


def test_a_rule_that_keeps_nothing_has_no_region():
    assert kept_region(0, 5, 6) == []


def test_text_in_charts_is_escaped():
    svg = histogram("<b>&", "<i>", [0, 1], [1], [0], ("<u>", 0.5))
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert "<u>" not in svg


def test_lines_have_their_names_at_their_ends():
    chart = lines(
        "title", "copies", "dev", {"with": [(0, 80.0), (10, 79.0)], "without": [(0, 80.0), (10, 60.0)]}
    )
    with_mask, without = elements(chart, "polyline", "line")
    ends = [line.get("points").split()[-1].split(",") for line in (with_mask, without)]
    assert ends[0][0] == ends[1][0]
    assert float(ends[0][1]) < float(ends[1][1]), "79 is above 60"
    names = {each.text: each for each in elements(chart, "text", "label") if each.text in ("with", "without")}
    assert float(names["without"].get("y")) > float(names["with"].get("y"))
    assert max(float(name.get("x")) for name in names.values()) < WIDTH
    assert len(elements(chart, "circle", "dot")) == 4


@pytest.mark.parametrize("points", [[(0.3, 5.0)], [(0.0, 5.0), (1.0, 5.0)], [(0.5, -3.0), (0.9, 4.0)]])
def test_lines_of_any_points_are_inside_the_chart(points):
    for dot in elements(lines("t", "x", "y", {"one": points}), "circle", "dot"):
        assert 0 < float(dot.get("cx")) < WIDTH
        assert 0 < float(dot.get("cy")) < HEIGHT


def test_a_chart_of_its_own_is_an_svg_file_with_colours():
    text = standalone(curve("title", "x", "y", [(0, 1.0), (1, 2.0)]))
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert ".line{" in root.findtext("{http://www.w3.org/2000/svg}style")
