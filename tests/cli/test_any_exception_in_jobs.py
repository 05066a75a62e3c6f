"""Whatever is raised under the commands that train, measure and look at jobs on clusters: one line.

Training and stages work in this process, where exceptions are raised in the workers' functions, too.
`SAMPLES=2000 pytest -m slow` draws more.
"""

import os
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from multicsr.deploy.kubernetes import api, follow
from multicsr.deploy.kubernetes import jobs as kube
from multicsr.deploy.ray import jobs as ray_jobs
from multicsr.deploy.submit import retry
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from tests.support.any_exception import attack, quiet_process  # noqa: F401 - a fixture
from tests.support.fake_jobs_api import NAME, jobs_api
from tests.support.fake_kube import FakeKube
from tests.support.jobs_here import jobs_here, tiny_config, write_inputs

SAMPLES = int(os.environ.get("SAMPLES", "500"))
LOCAL: dict[str, list[str]] = {
    "run": ["run", "CONFIG", "--set", "store=EMPTY"],
    "train": ["train", "CONFIG", "--set", "train.learning_rate=0.001"],
    "train again": ["train", "CONFIG"],
    "evaluate a run": ["run", "CONFIG", "--set", "evaluate.batch_size=7"],
    "evaluate": ["evaluate", "MODEL", "--data", "DATA", "--json", "FIGURES"],
    "refresh": ["refresh", "CONFIG", "--set", "input.paths=[MORE]", "--set", "refresh.retrain_share=0"],
    "refresh again": ["refresh", "CONFIG"],
    "ablate": ["ablate", "CONFIG", "--data", "DATA", "--human", "DATA", "--seeds", "1"],
}
REMOTE: dict[str, list[str]] = {
    f"{words[0]} {to}": [*words, "--to", to, *where]
    for to, where in (("k8s", []), ("ray", ["--address", "ADDRESS"]))
    for words in (["jobs"], ["status", NAME], ["logs", NAME], ["stop", NAME])
}
REMOTE["follow k8s"] = ["logs", NAME, "--to", "k8s", "--follow"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Iterator[Path]:
    """A folder with the inputs of a run and its complete store, while jobs work in this process."""
    folder = tmp_path_factory.mktemp("finished")
    write_inputs(folder)
    config = tiny_config(folder, folder / "store", "a.txt", dev=str(folder / "triplets.tsv"))
    tree = config.model_dump(mode="json", exclude_unset=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    with jobs_here():
        full_run.run(config, SilentProgress())
        yield folder


def local_words(finished: Path, folder: Path, command: str) -> list[str]:
    """Return the words of a command on a fresh copy of the finished run."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished / "store", folder / "store", symlinks=True)
    config = yaml.safe_load((finished / "config.yaml").read_text()) | {"store": str(folder / "store")}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    known = {
        "CONFIG": folder / "config.yaml",
        "MODEL": folder / "store/encoder",
        "DATA": finished / "triplets.tsv",
        "FIGURES": folder / "figures.json",
        "store=EMPTY": f"store={folder / 'empty'}",
        "input.paths=[MORE]": f"input.paths=[{finished / 'a.txt'},{finished / 'b.txt'}]",
    }
    return [str(known.get(word, word)) for word in LOCAL[command]]


@pytest.fixture
def clusters(tmp_path, monkeypatch) -> Iterator[tuple[FakeKube, str]]:
    """A Kubernetes and a Ray cluster with one job each, which answer at once."""
    for module, name, value in (
        (retry, "_FIRST_PAUSE_S", 0.001),
        (api, "_DENIED_S", 0.05),
        (api, "_DENIED_POLL_S", 0.01),
        (follow, "_AWAY_S", 0.1),
        (follow, "_REST_OF_LOG_S", 0.1),
        (kube, "_POLL_S", 0.01),
        (ray_jobs, "_POLL_S", 0.01),
    ):
        monkeypatch.setattr(module, name, value)
    with FakeKube() as fake, jobs_api() as address:
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(fake.kubeconfig()))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield fake, address


def remote_words(clusters: tuple[FakeKube, str], command: str) -> list[str]:
    """Return the words of a command for clusters on which the job is there again."""
    fake, address = clusters
    fake.submitted(NAME, "refresh")
    fake.pod(NAME, f"{NAME}-abc", "Succeeded", "2026-11-25T00:00:00Z one")
    fake.status(NAME, "Complete" if command.startswith("follow") else "Running", "SUCCEEDED")
    return [address if word == "ADDRESS" else word for word in REMOTE[command]]


@pytest.mark.cluster
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("quiet_process")
def test_exceptions_in_training_and_evaluation_are_one_line(finished, monkeypatch, capfd, tmp_path):
    words = partial(local_words, finished, tmp_path / "run")
    attack(LOCAL, words, random.Random(7), 40, monkeypatch, capfd, [0])


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("quiet_process")
def test_exceptions_while_a_cluster_is_asked_are_one_line(clusters, monkeypatch, capfd):
    attack(REMOTE, partial(remote_words, clusters), random.Random(7), 100, monkeypatch, capfd, [0])


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.usefixtures("quiet_process")
def test_many_exceptions_in_training_and_evaluation_are_one_line(finished, monkeypatch, capfd, tmp_path):
    words = partial(local_words, finished, tmp_path / "run")
    attack(LOCAL, words, random.Random(), SAMPLES, monkeypatch, capfd, [0])


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.usefixtures("quiet_process")
def test_many_exceptions_while_a_cluster_is_asked_are_one_line(clusters, monkeypatch, capfd):
    attack(REMOTE, partial(remote_words, clusters), random.Random(), SAMPLES, monkeypatch, capfd, [0])
