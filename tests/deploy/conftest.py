"""A run in a bucket, and a fake Kubernetes API that the client library finds."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.deploy.kubernetes import api, causes
from multicsr.deploy.kubernetes import follow as kube_follow
from multicsr.deploy.submit import retry
from tests.support.fake_kube import FakeKube
from tests.support.paths import ROOT

RENDERED = ROOT / "k8s/overlays/nightly/jobs.yaml"
"""The RayJob `refresh`, rendered; so kubectl is not needed."""
MARKS = {"multicsr.io/run": "night", "app.kubernetes.io/part-of": "multicsr"}
"""Labels of a job that multicsr submitted."""
TREE = {
    "name": "nights",
    "store": "s3://b/t",
    "input": {"paths": ["s3://b/in.txt"]},
    "llm": {"engine": "fake"},
    "evaluate": {"data": ["sts.tsv"]},
}


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    """The file of a run, with a data file beside it, in the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sts.tsv").write_text("score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n")
    (tmp_path / "nights.yaml").write_text(yaml.safe_dump(TREE))
    return tmp_path / "nights.yaml"


@pytest.fixture
def kube(tmp_path, monkeypatch) -> Iterator[FakeKube]:
    """The fake, which KUBECONFIG names."""
    with FakeKube() as fake:
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(fake.kubeconfig()))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield fake


@pytest.fixture
def submitted(kube, monkeypatch) -> FakeKube:
    """The fake with a job that no operator has looked at; pauses are short."""
    monkeypatch.setattr(kube_follow, "_LOOK_S", 0.05)
    monkeypatch.setattr(causes, "_LOOK_S", 0.05)
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(api, "_DENIED_POLL_S", 0.02)
    kube.put("rayjobs", {"metadata": {"name": "night", "labels": MARKS}})
    return kube


def follow(kube: FakeKube, *steps: Callable[[], object], pause_s: float = 0.2):
    """Follow the job while the steps are taken, with a pause before each, from the first watch on."""
    over = threading.Event()

    def take() -> None:
        while not any("watch=1" in request for request in kube.requests) and not over.is_set():
            time.sleep(0.01)
        for step in steps:
            time.sleep(pause_s)
            step()

    thread = threading.Thread(target=take)
    thread.start()
    shown = CliRunner().invoke(app, ["logs", "night", "--to", "k8s", "--follow"])
    over.set()
    thread.join()
    return shown
