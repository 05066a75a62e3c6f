"""The commands' own words: help, options that would do nothing, jobs that run here."""

import re

import pytest
import yaml
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.deploy.submit.job import CONFIG
from multicsr.storage.store import Store
from multicsr.storage.versions import current


def multicsr(*words: str):
    return CliRunner().invoke(app, [*words])


@pytest.mark.parametrize("command", ["submit", "jobs", "status", "logs", "stop"])
def test_every_command_has_help_with_an_example(command):
    shown = multicsr(command, "--help")
    assert shown.exit_code == 0
    assert re.search(rf"Example:\s+multicsr {command}", shown.output)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "local", "--name", "x"], "--name has no effect with --to local; leave it out"),
        (["--to", "local", "--dry-run"], "--dry-run has no effect with --to local"),
        (["--to", "ray", "--overlay", "x"], "--overlay has no effect with --to ray"),
        (["--to", "k8s", "--address", "x"], "--address has no effect with --to k8s"),
        (["--to", "k8s", "--time-zone", "UTC"], "--time-zone has no effect without --daily"),
        (["--to", "k8s"], "--to k8s needs an overlay: give --overlay, such as"),
        (
            ["--to", "ray"],
            "--to ray needs an address: give --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS",
        ),
        (["--to", "ray", "--set", "store=runs/x"], "store: runs/x is a directory of this machine"),
        (["--to", "ray", "--set", "input.paths=[in.txt]"], "input.paths: in.txt is a directory of this"),
        (["--to", "ray", "--set", "store=s3://b/$x"], "store: s3://b/$x goes through a shell"),
    ],
)
def test_words_that_cannot_work_are_one_line(config, monkeypatch, words, message):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    failed = multicsr("submit", "refresh", str(config), *words)
    assert (failed.exit_code, failed.stderr.count("\n")) == (2, 1), failed.output
    assert message in failed.stderr


def test_error_for_an_unknown_job_lists_the_known_ones(config):
    failed = multicsr("submit", "refesh", str(config), "--to", "k8s")
    known = "ingest, generate, curate, train, evaluate, refresh"
    assert failed.stderr == f"error: refesh: there is no such job; take one of {known}\n"


def test_a_dry_run_for_ray_prints_what_would_be_sent(config):
    shown = multicsr("submit", "refresh", str(config), "--to", "ray", "--dry-run", "--name", "night")
    assert shown.exit_code == 0, shown.output
    job, sent = yaml.safe_load_all(shown.stdout)
    folder = f"s3://b/t/jobs/night/{job['metadata'][CONFIG]}"
    command = f"python -m ray_jobs.refresh {folder}/config.yaml --checksum "
    assert re.fullmatch(re.escape(command) + "[0-9a-f]{32}", job["entrypoint"])
    assert sent["evaluate"]["data"] == [f"{folder}/sts.tsv"]


def test_a_job_may_run_here(config, tmp_path, ray_cluster):
    (tmp_path / "in.txt").write_text("".join(f"This is sentence number {n} of many.\n" for n in range(20)))
    places = ["--set", f"store={tmp_path / 'store'}", "--set", f"input.paths=[{tmp_path / 'in.txt'}]"]
    done = multicsr("submit", "ingest", str(config), "--to", "local", *places)
    assert done.exit_code == 0, done.output
    assert set(current(Store.open(str(tmp_path / "store"))).fingerprints) == {"sentences"}
