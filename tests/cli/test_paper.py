"""The command `reproduce`: its list, its errors, and the options that reach the runner."""

import pytest
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.tools.reproduce import run
from multicsr.tools.reproduce.registry import ENTRIES, list_lines
from multicsr.tools.reproduce.result import Reproduction

EMPTY = Reproduction(
    name="table-3",
    title="Ablation",
    scale="small",
    created="2026-12-01T00:00:00+00:00",
    versions={},
    seeds=[42],
    seconds=1.0,
    columns=["STS-B dev"],
    extra_columns=[],
    rows=[],
    stated=[],
    notes=[],
)


@pytest.fixture
def called(monkeypatch) -> list[tuple]:
    """The calls of the runner, which measures nothing."""
    calls: list[tuple] = []
    monkeypatch.setattr(run, "reproduce", lambda *given: (calls.append(given), EMPTY)[1])
    return calls


def invoke(*words: str):
    return CliRunner().invoke(app, ["reproduce", *words])


def test_the_list_has_a_line_for_each_table_and_figure():
    done = invoke("--list")
    assert done.exit_code == 0
    assert done.output.splitlines() == [*list_lines()]
    assert {line.split()[0] for line in done.output.splitlines()} == {*ENTRIES}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table-14"], "'table-14' is no table or figure of the paper; use one of table-1"),
        ([], "NAME is missing"),
        (["table-3", "--scale", "huge"], "--scale: 'huge' is neither full nor small"),
        (["table-3", "--source", "nli=a.txt"], "--source 'nli=a.txt': write NAME=FILE with one of premises"),
        (
            ["table-4", "--source", "wikipedia=a", "--source", "wikipedia=b"],
            "there is a file for wikipedia already",
        ),
        (["table-3", "--out", "table.svg"], "--out: table-3 is a table and has no chart"),
        (["table-3", "--out", "table.docx"], "--out: table.docx must end in .json, .csv, .md, .tex, .svg"),
        (["table-3", "--out", "no/such/folder.md"], "--out: there is no directory no/such; create it first"),
        (["table-3", "--scale", "full"], "table-3: no row can run: there are no sentences premises"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(words, message):
    done = invoke(*words)
    assert done.exit_code == 2
    [line] = done.stderr.strip().splitlines()
    assert message in line


def test_options_reach_the_runner(called, tmp_path):
    out = tmp_path / "out.json"
    done = invoke(
        *("table-4", "--scale", "full", "--llm", "l", "--encoder", "e", "--sentences", "s.tsv"),
        *("--column", "c", "--source", "wikipedia=w.txt", "--data", "d", "--dev", "v", "--labelled", "t"),
        *("--endpoint", "http://h/v1", "--endpoint-model", "m", "--seeds", "2", "--limit", "9"),
        *("--store", "r", "--set", "a.b=1"),
        *("--out", str(out)),
    )
    assert done.exit_code == 0, done.output
    [(entry, options, _)] = called
    assert entry is ENTRIES["table-4"]
    assert vars(options) == {
        "scale": "full",
        "store": "r",
        "llm": "l",
        "encoder": "e",
        "sources": {"premises": "s.tsv", "wikipedia": "w.txt"},
        "column": "c",
        "data": ["d"],
        "dev": "v",
        "labelled": "t",
        "endpoint": "http://h/v1",
        "endpoint_model": "m",
        "seeds": 2,
        "limit": 9,
        "overrides": ["a.b=1"],
    }
    assert Reproduction.model_validate_json(out.read_text()) == EMPTY
