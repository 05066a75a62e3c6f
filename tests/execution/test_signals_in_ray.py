"""SIGTERM while Ray works for a command: exit 143, nothing of C++ on the terminal, the lease given back."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from multicsr.storage.store import Store
from tests.support.paths import ROOT
from tests.support.signals import restore_signals

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_job_is_ended_while_its_workers_write(number, tmp_path):
    lines = [f"This is sentence number {i} out of very many of them." for i in range(4000)]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    tree = {
        "name": "signal",
        "store": str(tmp_path / "store"),
        "input": {"paths": [str(tmp_path / "in.txt")]},
        "llm": {"engine": "fake"},
        "generate": {"rows_per_shard": 50, "actors": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    job = subprocess.Popen(
        [sys.executable, "-m", "tests.support.job_side", str(tmp_path / "config.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        preexec_fn=restore_signals,
    )
    begun = tmp_path / "store.begun"
    begun.mkdir()
    while not any(begun.iterdir()):
        assert job.poll() is None, job.communicate()[1]
        time.sleep(0.05)
    job.send_signal(number)
    out, err = job.communicate(timeout=120)
    assert job.returncode == 128 + number, err
    assert "Traceback" not in out + err
    assert "***" not in err, "absl's handler prints *** SIGTERM received ***"
    assert err.splitlines()[-1].startswith(f"ended by {number.name}")
    store = Store.open(str(tmp_path / "store"))
    heartbeats = [store.read_text(name) for name in store.names("leases")]
    assert len(heartbeats) == 1
    assert '"released":true' in heartbeats[0].replace(" ", "")
