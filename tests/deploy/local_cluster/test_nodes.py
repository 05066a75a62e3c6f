"""`multicsr cluster`: real Ray nodes on this machine, a real job on them, and what is left afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

from multicsr.deploy.local_cluster.cluster import LocalCluster, alive
from multicsr.deploy.local_cluster.process_registry import carries, end, tagged
from multicsr.observability.metrics import published
from tests.k8s.test_alerts import RAY_NODE, RAY_WORKER

pytestmark = pytest.mark.cluster
JOB = """
import time
import ray
from multicsr.observability import metrics

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


def until(what, seconds=240):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, what
        time.sleep(0.5)
    return found


def test_three_nodes_come_work_and_go(environment, tmp_path):
    def command(*words):
        run = [sys.executable, "-m", "multicsr.cli.main", "cluster", *words]
        return subprocess.run(run, env=environment, capture_output=True, text=True)

    other = subprocess.Popen(["sleep", "600"], env={**environment, "MULTICSR_CLUSTER": "another"})
    record = tmp_path / "multicsr" / "cluster.json"
    try:
        first = command("up", "--nodes", "3", "--cpus", "2")
        assert first.returncode == 0, first.stderr
        cluster = LocalCluster.model_validate_json(record.read_bytes())
        assert f"--to ray --address {cluster.dashboard}" in first.stdout
        assert cluster.token_file.stat().st_mode & 0o777 == 0o600
        assert cluster.folder.stat().st_mode & 0o077 == 0
        _check_token(cluster)
        published_s = time.monotonic()
        _check_metrics(cluster, tmp_path / "job.py")
        _check_listening(cluster)
        again = command("up", "--nodes", "3", "--cpus", "2")
        assert (again.returncode, "is up already" in again.stdout) == (0, True)
        other_size = command("up", "--nodes", "2", "--cpus", "2")
        assert other_size.returncode == 1
        assert "with --nodes 3 --cpus 2, not --nodes 2 --cpus 2" in other_size.stderr
        assert LocalCluster.model_validate_json(record.read_bytes()) == cluster
        _check_nodes(cluster)
        processes = tagged(cluster.mark)
        _check_labels(cluster)
        # Ray drops a gauge that was not set for some 30 s.
        time.sleep(max(0, 45 - (time.monotonic() - published_s)))
        assert set(shown(cluster)) >= published()
        token = cluster.token_file.read_bytes()
        assert len(processes) > 10
        assert not [line for line in command_lines(processes) if token in line]
        _check_a_lost_node(command, cluster)
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


def command_lines(pids):
    """Those of processes that have not ended since."""
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            yield Path(f"/proc/{pid}/cmdline").read_bytes()


def _check_nodes(cluster):
    nodes = alive(cluster)
    assert sorted(node["labels"]["multicsr.io/role"] for node in nodes) == ["cpu", "generate", "head"]
    cpus = {node["labels"]["multicsr.io/role"]: node["resources_total"].get("CPU", 0) for node in nodes}
    assert cpus == {"head": 0, "cpu": 2, "generate": 2}


def _check_token(cluster):
    jobs, job = f"{cluster.dashboard}/api/jobs/", {"entrypoint": "true"}
    token = cluster.token_file.read_text()
    assert ask(jobs)[0] == 401
    assert ask(jobs, job=job)[0] == 401
    assert ask(jobs, "0" * 64, job)[0] == 403
    assert ask(jobs, token) == (200, "[]")


def _check_listening(cluster):
    """No process of Ray or of a job can be reached from another machine."""

    def found():
        return [addresses for pid in descendants(cluster.mark) if (addresses := listening(pid))]

    until(lambda: len(found()) > 4 * len(cluster.nodes), 60)  # a node's agents start after it
    assert {address.removeprefix("::ffff:") for addresses in found() for address in addresses} == {
        "127.0.0.1"
    }


def descendants(mark):
    """Processes that carry the mark, and those below them: one that names itself may lose its environment."""
    found = {*tagged(mark)}
    for pid in [*found]:
        with suppress(psutil.NoSuchProcess):
            found |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return found


def listening(pid):
    """Addresses on which a process, if it has not ended, accepts connections."""
    try:
        connections = psutil.Process(pid).net_connections("inet")
    except psutil.NoSuchProcess:
        return []
    return [each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN]


def _check_metrics(cluster, script):
    """A job on the cluster publishes all there is; the nodes' ports show exactly that."""
    script.write_text(JOB)
    token = cluster.token_file.read_text()
    status, answer = ask(f"{cluster.dashboard}/api/jobs/", token, {"entrypoint": f"python {script}"})
    assert status == 200
    job = f"{cluster.dashboard}/api/jobs/{json.loads(answer)['submission_id']}"

    def ours():
        assert json.loads(ask(job, token)[1])["status"] in ("PENDING", "RUNNING"), ask(f"{job}/logs", token)
        return {name for name in shown(cluster) if name.startswith("ray_multicsr_")}

    until(lambda: ours() == published())


def shown(cluster):
    """The labels of each metric that the nodes' ports show."""
    texts = [ask(f"http://127.0.0.1:{node.metrics_port}/metrics")[1] for node in cluster.nodes]
    found = re.findall(r"^(ray_\w+)\{(.*)\} ", "\n".join(texts), re.MULTILINE)
    return {name: {label for label, _ in re.findall(r'(\w+)="([^"]*)"', labels)} for name, labels in found}


def _check_labels(cluster):
    """The series of the alerts' tests have the labels that Ray's have."""
    metrics = shown(cluster)
    ours = {"otel_scope_name", "otel_scope_schema_url", "otel_scope_version"}
    for name in published():
        tags = (
            {"stage"}
            if {"rows_kept", "rows_rejected", "shards_waiting"}
            & {name.removeprefix("ray_multicsr_").removesuffix("_total")}
            else set()
        )
        assert metrics[name] - ours == {*RAY_WORKER, *tags}, name
    assert metrics["ray_scheduler_unscheduleable_tasks"] - ours == {*RAY_WORKER, "Reason"}
    for name in ("mem_used", "mem_total", "disk_utilization_percentage"):
        assert metrics[f"ray_node_{name}"] - ours == set(RAY_NODE)


def _check_a_lost_node(command, cluster):
    """A part of a cluster is not taken for one."""
    os.kill(cluster.nodes[-1].pid, signal.SIGKILL)
    until(lambda: not carries(cluster.nodes[-1].pid, cluster.mark))
    again = command("up", "--nodes", "3", "--cpus", "2")
    assert again.returncode == 1
    assert f"a part of a cluster is up at {cluster.address}, 2 of 3 nodes" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_half_a_cluster_is_rejected_and_can_be_ended(environment, tmp_path, number):
    run = [sys.executable, "-m", "multicsr.cli.main", "cluster"]
    record = tmp_path / "multicsr" / "cluster.json"
    errors = tmp_path / "errors.txt"
    with errors.open("w") as file:
        first = subprocess.Popen([*run, "up", "--nodes", "3"], env=environment, stderr=file)

    def begun():
        assert first.poll() is None, errors.read_text()
        try:
            found = LocalCluster.model_validate_json(record.read_bytes())
        except FileNotFoundError:
            return None
        return found if found.nodes else None

    cluster = until(begun)
    busy = subprocess.run([*run, "up", "--nodes", "3"], env=environment, capture_output=True, text=True)
    assert (busy.returncode, "another `multicsr cluster` command" in busy.stderr) == (1, True)
    first.send_signal(number)
    assert first.wait(60) != 0
    try:
        if tagged(cluster.mark):  # nothing could end the nodes after kill -9
            assert number == signal.SIGKILL
            again = subprocess.run(
                [*run, "up", "--nodes", "3"], env=environment, capture_output=True, text=True
            )
            assert (again.returncode, "1 of 3 nodes" in again.stderr) == (1, True)
    finally:
        subprocess.run([*run, "down"], env=environment, capture_output=True)
    assert not tagged(cluster.mark)
    assert not record.exists()


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
