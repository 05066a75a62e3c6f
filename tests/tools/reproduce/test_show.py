"""Canned measurements in the terminal and in files: what nobody measured stays empty."""

import csv
import dataclasses
import io
import json
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from multicsr.tools.reproduce.output import require_writable, write_outputs
from multicsr.tools.reproduce.paper import PaperEntry
from multicsr.tools.reproduce.plan import plan_rows
from multicsr.tools.reproduce.registry import ENTRIES
from multicsr.tools.reproduce.result import MeasuredCell, ReproducedRow, Reproduction, RowFigures
from multicsr.tools.reproduce.run import _reproduction
from multicsr.tools.reproduce.scale import ReproduceOptions, inputs_of
from multicsr.tools.reproduce.show import (
    ReproductionTable,
    figure_lines,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
    to_svg,
)


def canned(entry: PaperEntry, full: ReproduceOptions, measured: int = 1) -> Reproduction:
    """Return a result in which the first columns of every row that can run have two trainings."""
    plans = plan_rows(entry, full, inputs_of(entry, full))
    names = [column.name for column in entry.columns][:measured]
    rows = []
    for number, plan in enumerate(plans):
        compared = {"difference": 1.0, "low": 0.5, "high": 1.5} if number else {}
        cell = MeasuredCell(values=[70.0 + number, 72.0 + number], metric="m", **compared)
        cells = dict.fromkeys(names, cell)
        rows.append(
            ReproducedRow(
                name=plan.row.name,
                group=plan.row.encoder,
                changes=[*plan.changes],
                reason=plan.reason,
                figures=RowFigures() if plan.reason else RowFigures(num_triplets=1234, cells=cells),
                paper={name: each.value for name, each in plan.row.numbers.items()},
                line=plan.row.line,
                x=plan.row.x,
            )
        )
    base = next(plan.config for plan in plans if plan.config is not None)
    return _reproduction(entry, full, base, rows, 12.0)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_every_entry_is_written_in_every_format(entry: PaperEntry, full, tmp_path):
    result = canned(entry, full)
    endings = [".json", ".csv", ".md", ".tex", *([".svg"] if entry.x_label else [])]
    paths = [tmp_path / f"out{ending}" for ending in endings]
    require_writable(paths, entry)
    if entry.name == "figure-7":
        figures = result.rows[0].figures.model_copy(update={"points": {"all": [(0.1, 2.0), (0.3, 5.0)]}})
        rows = [result.rows[0].model_copy(update={"figures": figures})]
        result = result.model_copy(update={"rows": rows})
    write_outputs(result, paths)
    assert Reproduction.model_validate_json(paths[0].read_text(encoding="utf-8")) == result
    if entry.x_label:
        root = ET.fromstring(paths[-1].read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_a_column_that_nobody_measured_is_empty_and_the_papers_numbers_stand_apart(full):
    result = canned(ENTRIES["table-2"], full)
    header, *rows = figure_lines(result)
    simcse = next(row for row in rows if row[0] == "SimCSE, unsupervised")
    by_column = dict(zip(header, simcse, strict=True))
    assert by_column["STS12"] == "73.00 ± 1.41 (+1.00 [+0.50, +1.50])"
    assert rows[1][header.index("STS12")] == "71.00 ± 1.41"
    assert (by_column["STS13"], by_column["Avg."]) == ("", "")
    assert by_column["Avg. (paper)"] == "76.25"
    assert "STS12 (paper)" not in header
    assert json.loads(to_json(result))["rows"][2]["figures"]["cells"].keys() == {"STS12"}


def test_a_row_that_cannot_run_has_its_reason_and_no_figures(full):
    result = canned(ENTRIES["table-6"], full)
    header, *rows = figure_lines(result)
    row = dict(zip(header, next(row for row in rows if row[0].startswith("InfoCSE")), strict=True))
    assert row["differs from the row above by"] == "an auxiliary network that reconstructs masked words"
    assert row["STS12"] == ""


def test_markdown_and_latex_state_what_was_not_measured(full):
    result = canned(ENTRIES["table-9"], full)
    for text in (to_markdown(result), to_latex(result)):
        assert "not measured: CR, SUBJ, MPQA, SST, TREC, MRPC, Avg." in text
    assert "seeds 42, 43, 44" in to_markdown(result)


def test_csv_keeps_measured_and_stated_numbers_in_columns_of_their_own(full):
    rows = [*csv.DictReader(io.StringIO(to_csv(canned(ENTRIES["table-2"], full))))]
    average = next(row for row in rows if row["row"] == "SimCSE, unsupervised" and row["column"] == "Avg.")
    assert (average["mean"], average["paper"]) == ("", "76.25")
    first = next(row for row in rows if row["row"] == "SimCSE, unsupervised")
    assert (first["column"], first["mean"], first["trainings"]) == ("STS12", "73.0", "2")


@pytest.mark.parametrize("width", [60, 400])
def test_the_terminal_shows_every_figure_whatever_its_width(width, full):
    result = canned(ENTRIES["table-3"], full)
    file = io.StringIO()
    Console(file=file, width=width).print(ReproductionTable(result))
    text = " ".join(file.getvalue().split())
    assert "w/o stage 1&2&3" in text
    assert "79.00" in text
    assert "generate.omega" in text


def test_lines_of_a_figure_are_its_rows_in_order(full):
    lines = canned(ENTRIES["figure-4"], full).lines()
    assert [*lines] == ["with stage 3", "without stage 3"]
    assert [x for x, _ in lines["with stage 3"]] == [0.0, 10.0, 100.0, 1000.0]
    by_column = canned(ENTRIES["figure-5"], full, measured=2).lines()
    assert [*by_column] == ["a > b, %", "kept, %"]


def test_the_chart_of_a_figure_has_lines_of_one_unit(full):
    result = canned(ENTRIES["figure-5"], full, measured=5)
    assert "mean a" in result.lines()
    chart = to_svg(result)
    assert "kept, %" in chart
    assert "mean a" not in chart
    assert "mean a" in to_csv(result)


@pytest.mark.parametrize(
    ("name", "seeds"), [("table-1", [42]), ("table-13", [42]), ("figure-5", [42]), ("table-3", [42, 43, 44])]
)
def test_the_seeds_are_those_that_were_used(name, seeds, full):
    result = canned(ENTRIES[name], full)
    assert result.seeds == seeds
    assert ("Checkpoints are chosen on the file that is measured" in " ".join(result.notes)) == (
        name == "table-3"
    )


def test_a_table_without_trainings_states_nothing_about_checkpoints(full):
    result = canned(ENTRIES["table-1"], dataclasses.replace(full, dev=None))
    assert not any("checkpoint" in note for note in result.notes)


def test_small_scale_states_what_its_labelled_triplets_share_with_the_test_set():
    for name, shared in (("table-11", True), ("table-2", False)):
        notes = canned(ENTRIES[name], ReproduceOptions()).notes
        assert any("44 of their hypotheses" in note for note in notes) == shared


def test_a_figure_without_points_has_no_chart(full):
    result = canned(ENTRIES["figure-6"], full, measured=0)
    assert to_svg(result) is None
