"""The registry: every table and figure, its rows, and the paper's numbers against the paper's text."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from multicsr.errors import ConfigError
from multicsr.tools.reproduce.main_tables import SIMCSE_NOTE, UNSUPERVISED
from multicsr.tools.reproduce.paper import Measure, PaperEntry, PaperNumber, PaperRow
from multicsr.tools.reproduce.plan import RowPlan, plan_rows
from multicsr.tools.reproduce.registry import ENTRIES, entry_named, list_lines
from multicsr.tools.reproduce.scale import inputs_of
from tests.support.paths import ROOT

NUMBERS = [
    (entry.name, number)
    for entry in ENTRIES.values()
    for number in (*entry.stated, *(number for row in entry.rows for number in row.numbers.values()))
]


@pytest.fixture(scope="session")
def paper() -> str:
    """The text of the paper without addresses, where it lies beside the checkout."""
    places = [folder / "shared/paper/multicsr.txt" for folder in ROOT.parents]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        pytest.skip("the paper's text is absent")
    return _plain(re.sub(r"\(https?://[^)]*\)", "", found.read_text(encoding="utf-8")))


def _plain(text: str) -> str:
    return " ".join(text.split())


def test_every_table_and_figure_has_an_entry():
    assert [*ENTRIES] == [
        *(f"table-{number}" for number in range(1, 14)),
        *(f"figure-{number}" for number in range(4, 8)),
    ]
    assert all(name == entry.name for name, entry in ENTRIES.items())


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_is_described(entry: PaperEntry):
    assert all([entry.title, entry.shows, entry.data, entry.cost, entry.columns, entry.rows])
    columns = [column.name for column in entry.columns]
    assert len(set(columns)) == len(columns)
    assert {name for row in entry.rows for name in row.numbers} <= set(columns)
    assert entry.name.startswith("figure") == bool(entry.x_label)


@pytest.mark.parametrize(("name", "number"), NUMBERS, ids=lambda value: str(value)[:40])
def test_a_number_stands_in_its_quote(name: str, number: PaperNumber):
    assert f"{number.value:g}" in number.quote or f"{number.value:.1f}" in number.quote, name


@pytest.mark.parametrize(("name", "number"), NUMBERS, ids=lambda value: str(value)[:40])
def test_a_quote_stands_in_the_paper(name: str, number: PaperNumber, paper: str):
    assert _plain(number.quote) in paper, name


def faults(entry: PaperEntry, plans: list[RowPlan]) -> list[str]:
    """Return the rows of a table that have the settings of another one, under another title."""
    known: dict[str, str] = {}
    found = []
    for plan in plans:
        if plan.config is None:
            continue
        key = json.dumps(plan.settings(), sort_keys=True)
        if key in known:
            found.append(f"{entry.name}: {plan.row.name!r} has the settings of {known[key]!r}")
        known.setdefault(key, plan.row.name)
    return found


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_tables_with_unsupervised_simcse_state_how_it_is_trained(entry: PaperEntry):
    has_row = any(row.settings.items() >= UNSUPERVISED.items() for row in entry.rows)
    assert (SIMCSE_NOTE in entry.notes) == (has_row and entry.measure == Measure.TASKS)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_rows_of_an_entry_have_different_titles(entry: PaperEntry):
    titles = [(row.encoder, row.name) for row in entry.rows]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_rows_differ_by_more_than_their_titles(entry: PaperEntry, full):
    assert faults(entry, plan_rows(entry, full, inputs_of(entry, full))) == []


def test_a_row_that_differs_in_its_title_only_is_a_fault(full):
    entry = ENTRIES["table-3"]
    twin = dataclasses.replace(entry, rows=(*entry.rows, PaperRow("MultiCSR, once more")))
    plans = plan_rows(twin, full, inputs_of(twin, full))
    assert faults(twin, plans) == ["table-3: 'MultiCSR, once more' has the settings of 'MultiCSR'"]
    assert plans[-1].reason == "at this scale the same as 'MultiCSR'"


def test_the_list_has_a_line_for_each_name():
    lines = [*list_lines()]
    assert [line.split()[0] for line in lines] == [*ENTRIES]
    assert all(ENTRIES[line.split()[0]].title in line for line in lines)


def test_an_unknown_name_is_an_error_with_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"'table-14' is no table or figure of the paper; use one of table-1"
    ):
        entry_named("table-14")


def test_files_of_the_demo_exist():
    from multicsr.tools.reproduce.scale import DEMO

    assert all(Path(DEMO, name).is_file() for name in ("sentences.tsv", "dev_triplets.tsv"))
