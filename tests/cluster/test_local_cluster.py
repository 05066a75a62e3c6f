"""`multicsr cluster`: real Ray nodes on this machine, a real job on them, and what is left afterwards."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from multicsr.cluster import Cluster, alive
from multicsr.marked import carries, end, marked
from multicsr.metrics import published

pytestmark = pytest.mark.cluster
JOB = """
import time
import ray
from multicsr import metrics

ray.init(logging_level="error")
for names, kind in ((metrics.COUNTERS, "amounts"), (metrics.GAUGES, "levels")):
    for name in names:
        stage, _, rest = ("test", "", name) if name in metrics._TAGGED else name.partition("_")
        metrics.publish(stage, *([{rest: 1.0}] if kind == "amounts" else [{}, {rest: 1.0}]))
while True:
    time.sleep(1)
"""


@pytest.fixture
def environment(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": os.getcwd()}


def ask(url, token=None, job=None):
    """Status and answer."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = json.dumps(job).encode() if job else None
    try:
        with urlopen(Request(url, data, headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, ""


def until(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, what
        time.sleep(0.5)
    return found


def test_three_nodes_come_work_and_go(environment, tmp_path):
    def command(*words):
        run = [sys.executable, "-m", "multicsr.cli", "cluster", *words]
        return subprocess.run(run, env=environment, capture_output=True, text=True)

    other = subprocess.Popen(["sleep", "600"], env={**environment, "MULTICSR_CLUSTER": "another"})
    record = tmp_path / "multicsr" / "cluster.json"
    try:
        first = command("up", "--nodes", "3", "--cpus", "2")
        assert first.returncode == 0, first.stderr
        cluster = Cluster.model_validate_json(record.read_bytes())
        assert f"--to ray --address {cluster.dashboard}" in first.stdout
        assert cluster.token_file.stat().st_mode & 0o777 == 0o600
        assert cluster.folder.stat().st_mode & 0o077 == 0
        again = command("up")
        assert (again.returncode, "is up already" in again.stdout) == (0, True)
        assert Cluster.model_validate_json(record.read_bytes()) == cluster
        _check_nodes(cluster)
        _check_door(cluster)
        _check_metrics(cluster, tmp_path / "job.py")
        processes = marked(cluster.mark)
        token = cluster.token_file.read_bytes()
        assert len(processes) > 10
        assert not [pid for pid in processes if token in Path(f"/proc/{pid}/cmdline").read_bytes()]
    finally:
        down = command("down")
    assert down.returncode == 0, down.stderr
    assert not [pid for pid in processes if carries(pid, cluster.mark)]
    assert not cluster.folder.exists()
    assert not record.exists()
    assert not cluster.token_file.exists()
    assert other.poll() is None
    other.kill()
    other.wait()
    twice = command("down")
    assert twice.returncode == 1
    assert twice.stderr == "error: no cluster is up here; `multicsr cluster up` starts one\n"


def _check_nodes(cluster):
    nodes = alive(cluster)
    assert sorted(node["labels"]["multicsr.io/role"] for node in nodes) == ["cpu", "generate", "head"]
    cpus = {node["labels"]["multicsr.io/role"]: node["resources_total"].get("CPU", 0) for node in nodes}
    assert cpus == {"head": 0, "cpu": 2, "generate": 2}


def _check_door(cluster):
    jobs, job = f"{cluster.dashboard}/api/jobs/", {"entrypoint": "true"}
    token = cluster.token_file.read_text()
    assert ask(jobs)[0] == 401
    assert ask(jobs, job=job)[0] == 401
    assert ask(jobs, "0" * 64, job)[0] == 403
    assert ask(jobs, token) == (200, "[]")


def _check_metrics(cluster, script):
    """A job on the cluster publishes all there is; the nodes' ports show exactly that."""
    script.write_text(JOB)
    token = cluster.token_file.read_text()
    status, answer = ask(f"{cluster.dashboard}/api/jobs/", token, {"entrypoint": f"python {script}"})
    assert status == 200
    job = f"{cluster.dashboard}/api/jobs/{json.loads(answer)['submission_id']}"

    def shown():
        assert json.loads(ask(job, token)[1])["status"] in ("PENDING", "RUNNING"), ask(f"{job}/logs", token)
        texts = [ask(f"http://127.0.0.1:{node.metrics_port}/metrics")[1] for node in cluster.nodes]
        return set(re.findall(r"^(ray_multicsr_\w+)\{", "\n".join(texts), re.MULTILINE))

    until(lambda: shown() == published())


def test_only_what_carries_the_mark_is_ended():
    """A process that ignores the request is killed; one whose mark merely begins alike is left alone."""
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(99)"
    kept, killed, polite = (
        subprocess.Popen(
            [sys.executable, "-c", stubborn],
            env={**os.environ, "MULTICSR_CLUSTER": mark},
            stdout=subprocess.PIPE,
        )
        for mark in ("abcd", "abc", "abc")
    )
    for process in (kept, killed, polite):
        process.stdout.readline()
    polite.kill()  # a zombie until it is waited for, which must not be waited for in vain
    end("MULTICSR_CLUSTER=abc", [[polite.pid, kept.pid], [killed.pid]], patience_s=0.5)
    assert (kept.poll(), killed.wait(5)) == (None, -9)
    assert carries(kept.pid, "MULTICSR_CLUSTER=abcd")
    kept.kill()
    for process in (kept, polite):
        process.wait()
        process.stdout.close()
    killed.stdout.close()
