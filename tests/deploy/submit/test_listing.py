"""Lists of jobs: names whole in any terminal and pipe, and one JSON document for programs."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.cli.options import echo_json
from multicsr.deploy.submit.job import JobStatus, Phase
from multicsr.deploy.submit.listing import as_record, as_table
from multicsr.storage.store import Store
from multicsr.storage.versions import Log, Version
from tests.deploy.conftest import ROOT

LONG = [f"{'corpus-of-the-whole-company'[:26]}-generate-1f2e3d4c{end}" for end in ("", "-2", "-10")]


def test_names_are_whole_and_oldest_first():
    jobs = [
        JobStatus(name, Phase.RUNNING, job="generate", since=f"2026-0{9 - n}-01")
        for n, name in enumerate(LONG)
    ]
    lines = as_table(jobs).splitlines()
    assert [line.split()[0] for line in lines] == ["name", *reversed(LONG)]
    assert len({line.index("running") for line in lines[1:]}) == 1, "columns stand below one another"


def test_no_jobs_are_a_heading_and_an_empty_list(kube):
    assert as_table([]).split() == ["name", "job", "attempt", "state", "since"]
    assert json.loads(CliRunner().invoke(app, ["jobs", "--json", "--to", "k8s"]).stdout) == []


def test_json_is_ascii_whatever_names_hold(capsys):
    echo_json([as_record(JobStatus("é\x1b[31m\u2028", Phase.FAILED, cause="日本"))])
    text = capsys.readouterr().out
    assert text.isascii()
    assert "\x1b" not in text
    (found,) = json.loads(text)
    assert (found["name"], found["state"], found["cause"]) == ("é\x1b[31m\u2028", "failed", "日本")


@pytest.fixture
def kube_with_jobs(kube):
    labels = {
        "multicsr.io/run": LONG[0],
        "multicsr.io/job": "generate",
        "app.kubernetes.io/part-of": "multicsr",
    }
    for number, name in enumerate(LONG):
        notes = {"multicsr.io/attempt": str(number + 1)}
        kube.put("rayjobs", {"metadata": {"name": name, "labels": labels, "annotations": notes}})
        kube.status(name, "Running", "RUNNING")
    return kube


def test_a_narrow_pipe_gets_whole_names(kube_with_jobs):
    """In a process of its own, as terminals and colours are looked for when a program starts."""
    command = [sys.executable, "-m", "multicsr.cli.main", "jobs", "--to", "k8s"]
    narrow = {**os.environ, "COLUMNS": "40", "FORCE_COLOR": "1"}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=narrow).stdout
    assert [line.split()[0] for line in shown.splitlines()] == ["name", *LONG]
    assert "\x1b" not in shown


def test_json_is_one_document(kube_with_jobs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    found = json.loads(CliRunner().invoke(app, ["jobs", "--json", "--to", "k8s"]).stdout)
    assert [job["name"] for job in found] == LONG
    assert [job["attempt"] for job in found] == [1, 2, 3]
    one = json.loads(CliRunner().invoke(app, ["status", LONG[1], "--json", "--to", "k8s"]).stdout)
    assert (one["name"], one["run"], one["state"], one["causes"]) == (LONG[1], LONG[0], "running", [])


def test_an_error_leaves_standard_output_empty(kube):
    failed = CliRunner().invoke(app, ["status", "absent", "--json", "--to", "k8s"])
    assert (failed.exit_code, failed.stdout) == (1, "")


def test_versions_are_one_document_too(tmp_path):
    store = Store.open(str(tmp_path / "store"))
    failed = CliRunner().invoke(app, ["versions", store.uri(), "--json"])
    assert (failed.exit_code, failed.stdout) == (1, "")
    for number in (1, 2):
        entry = Version(number=number, run="a" * 90, command="generate", artifacts={"scored": "f" * 16})
        assert Log(store).append(number, entry)
    shown = CliRunner().invoke(app, ["versions", store.uri(), "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert [(each["number"], each["current"], each["rows"]) for each in found] == [
        (1, False, {"scored": None}),
        (2, True, {"scored": None}),
    ]
    assert found[0]["run"] == "a" * 90
    table = CliRunner().invoke(app, ["versions", store.uri()], env={"COLUMNS": "40"}).stdout
    assert table.count("a" * 90 + ": generate") == 2
