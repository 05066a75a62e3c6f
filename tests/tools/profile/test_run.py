"""Profiled stages: what the folder holds, that the figures are the manifest's, that errors leave nothing."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.errors import ConfigError, RunError
from multicsr.execution.profiling import VARIABLE
from multicsr.observability.progress import SilentProgress
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.profile import STAGES, profile
from multicsr.tools.profile import run as profile_run
from tests.support.jobs_here import jobs_here, tiny_config, write_inputs

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def profiled(tmp_path_factory) -> dict[str, Path]:
    """Every stage of a small run, profiled in this process; the folder of each, and that of the run."""
    folder = tmp_path_factory.mktemp("profiled")
    write_inputs(folder)
    settings = tiny_config(folder, Path("run"), "a.txt").model_dump(mode="json", exclude_unset=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    with jobs_here(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("RAY_ADDRESS", raising=False)
        config = load_config(Path("run.yaml"))
        for stage in STAGES:
            profile(stage, config, Path("profiles", stage), 5, SilentProgress())
    return {stage: folder / "profiles" / stage for stage in STAGES} | {"run": folder}


def config_of(profiled, monkeypatch) -> Config:
    monkeypatch.chdir(profiled["run"])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return load_config(Path("run.yaml"))


@pytest.mark.parametrize("stage", STAGES)
def test_page_fits_on_a_page(profiled, stage):
    lines = (profiled[stage] / "reading.md").read_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 66
    assert lines[0].startswith(f"# Profile of {stage}")


@pytest.mark.parametrize("stage", STAGES)
def test_shares_on_the_page_add_up(profiled, stage):
    text = (profiled[stage] / "reading.md").read_text()
    roles = re.findall(r"(\d+)% +(\d+)% +(\d+)% +(\d+)%$", text, re.MULTILINE)
    assert roles
    for shares in roles:
        assert sum(map(int, shares)) == pytest.approx(100, abs=2)


@pytest.mark.parametrize(("stage", "operator"), [("train", "aten::addmm"), ("evaluate", "aten::embedding")])
def test_traces_hold_the_operators_of_the_stage(profiled, stage, operator):
    [file] = profiled[stage].glob("trace-*.json.gz")
    with gzip.open(file, "rt") as stream:
        events = json.load(stream)["traceEvents"]
    assert operator in {event["name"] for event in events if event.get("cat") == "cpu_op"}


def test_rows_are_those_of_the_manifests(profiled, monkeypatch):
    snapshot = current(Store.of(config_of(profiled, monkeypatch)))
    ingested, scored = snapshot.manifest("sentences"), snapshot.manifest("scored")
    steps = snapshot.manifest("model").counters["steps"]
    pages = {stage: (profiled[stage] / "reading.md").read_text() for stage in STAGES}
    assert f" {ingested.rows_in:,} rows read," in pages["ingest"]
    assert f" {scored.counters['rows_written']:,.0f} rows written," in pages["generate"]
    assert f" {scored.rows_out:,} rows read," in pages["curate"]
    assert f" {steps:,.0f} steps," in pages["train"]


def test_nothing_is_left_beside_the_folders(profiled):
    assert sorted(path.name for path in (profiled["run"] / "profiles").iterdir()) == sorted(STAGES)
    assert not [path for stage in STAGES for path in profiled[stage].iterdir() if path.suffix == ".jsonl"]
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("stage", ["ingest", "train"])
def test_reused_results_are_nothing_to_profile(profiled, stage, monkeypatch):
    config = config_of(profiled, monkeypatch)
    with jobs_here(), pytest.raises(RunError, match=r"nothing to profile.*--set store=") as error:
        profile(stage, config, Path("profiles", "again"), 5, SilentProgress())
    assert ("after ingest, generate, curate" in str(error.value)) == (stage == "train")
    assert not Path("profiles", "again").exists()


def test_failed_stage_leaves_nothing(profiled, monkeypatch):
    config = config_of(profiled, monkeypatch)
    with jobs_here(), pytest.raises(ConfigError):
        profile(
            "ingest",
            config.model_copy(update={"input": config.input.model_copy(update={"paths": ["none.txt"]})}),
            Path("failed"),
            5,
            SilentProgress(),
        )
    assert not [path.name for path in Path().iterdir() if "failed" in path.name]
    assert VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (
            ["report", "run.yaml", "--out", "new"],
            {},
            "STAGE: report cannot be profiled; choose one of ingest, ",
        ),
        (["ingest", "run.yaml", "--out", "full"], {}, "--out: full exists and is not an empty folder"),
        (
            ["ingest", "run.yaml", "--out", "run.yaml"],
            {},
            "--out: run.yaml exists and is not an empty folder",
        ),
        (["ingest", "run.yaml", "--out", "new"], {"RAY_ADDRESS": "a:1"}, "RAY_ADDRESS: workers of a running"),
    ],
)
def test_impossible_orders_are_one_line(profiled, words, environment, message, monkeypatch, capfd):
    config_of(profiled, monkeypatch)
    Path("full").mkdir(exist_ok=True)
    Path("full/file").touch()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["profile", *words])
    assert done.exit_code == 2
    [line] = (done.output + capfd.readouterr().err).strip().splitlines()
    assert message in line
    assert not Path("new").exists()


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    with profile_run._whole_folder(tmp_path / "out") as part:
        (part / "a").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a").exists()


@pytest.mark.slow  # a run under the profiler on a session of its own
def test_workers_of_ray_are_recorded(profiled, tmp_path):
    """The command itself: workers inherit the order, and Ray's timeline names their tasks."""
    settings = yaml.safe_load((profiled["run"] / "run.yaml").read_text())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**settings, "store": str(tmp_path / "store")}))
    command = [sys.executable, "-m", "multicsr.cli.main", "profile", "ingest", "run.yaml", "--out", "p"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    for path in settings["input"]["paths"]:
        if not Path(path).is_absolute():
            (tmp_path / path).symlink_to(profiled["run"] / path)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "p" / "reading.md").read_text()
    assert text in done.stdout
    assert "Ray starts" in text
    assert "ingest task" in text
    events = json.loads((tmp_path / "p" / "timeline.json").read_text())
    assert any("MapBatches" in event["cat"] for event in events)
