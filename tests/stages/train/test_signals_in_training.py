"""Ctrl-C and SIGTERM during a training: the right exit code, the lease given back, no process left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from multicsr.deploy.local_cluster.process_registry import tagged
from multicsr.storage.store import Store
from tests.stages.train.test_trainer import publish_curated
from tests.support.paths import ROOT
from tests.support.signals import restore_signals

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def config(tmp_path, tiny_bert, triplets) -> Path:
    """The file of a run whose training does not end by itself."""
    store = Store.open(str(tmp_path / "store"))
    publish_curated(store, triplets)
    training = {
        "encoder": str(tiny_bert),
        "mask": {"model": str(tiny_bert), "sigma": 0.9},
        "global_batch": 16,
        "steps": 5_000,
        "tensorboard": False,
    }
    tree = {"name": "signal", "store": store.uri(), "input": {"paths": ["none"]}, "train": training}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "config.yaml"


def start(config: Path, mark: str, workers: int) -> subprocess.Popen[str]:
    """Start a training in a process group of its own; return when it has done some steps."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    name, _, value = mark.partition("=")
    job = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "multicsr.cli.main",
            "train",
            str(config),
            "--set",
            f"train.workers={workers}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=config.parent,
        env={**environment, "PYTHONPATH": str(ROOT), name: value},
        start_new_session=True,
        preexec_fn=restore_signals,
    )
    while (
        sum(log.read_bytes().count(b"\n") for log in config.parent.glob("store/training/*/train.jsonl")) < 5
    ):
        assert job.poll() is None, job.communicate()[1]
        time.sleep(0.1)
    return job


def test_processes_are_found_by_their_mark(config):
    mark = f"MULTICSR_TEST={uuid4().hex}"
    sleeper = subprocess.Popen(["sleep", "60"], env=dict([mark.split("=")]))
    assert tagged(mark) == [sleeper.pid]
    sleeper.kill()
    sleeper.wait()
    assert tagged(mark) == []


@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGTERM, 1), pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow)],
)
def test_a_signal_ends_a_training_and_all_its_processes(config, number, workers):
    mark = f"MULTICSR_TEST={uuid4().hex}"
    job = start(config, mark, workers)
    assert len(tagged(mark)) > workers
    # A terminal sends Ctrl-C to every process of the group, a supervisor SIGTERM to the command.
    if number == signal.SIGINT:
        os.killpg(job.pid, number)
    else:
        job.send_signal(number)
    out, err = job.communicate(timeout=120)
    assert job.returncode == 128 + number, err
    assert "Traceback" not in out + err
    assert "***" not in err, "absl's handler prints *** SIGTERM received ***"
    assert err.splitlines()[-1].startswith(f"ended by {number.name}")
    store = Store.open(str(config.parent / "store"))
    (heartbeat,) = (store.read_text(name) for name in store.names("leases"))
    assert '"released":true' in heartbeat.replace(" ", "")
    end = time.monotonic() + 60
    while (left := tagged(mark)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not left
