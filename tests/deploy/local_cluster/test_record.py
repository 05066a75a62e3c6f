"""The record of a cluster on this machine, with processes instead of nodes; tests/cluster has real ones."""

import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from multicsr.deploy.local_cluster import cluster
from multicsr.deploy.local_cluster.cluster import alive
from multicsr.deploy.local_cluster.process_registry import carries, tagged
from multicsr.errors import RunError


@pytest.fixture(autouse=True)
def nodes(monkeypatch, tmp_path):
    """Processes that sleep; what is left of them in the end is ended."""
    started = []

    def start(arguments, ports, environment, log):
        node = subprocess.Popen(["sleep", "600"], env=environment)
        started.append(node)
        while not Path(f"/proc/{node.pid}/environ").read_bytes():  # its program has not begun yet
            time.sleep(0.01)
        return node.pid

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(cluster, "start_node", start)
    monkeypatch.setattr(cluster, "_STOP_S", 1.0)
    monkeypatch.setattr(cluster, "alive", lambda cluster: cluster.nodes)
    yield started
    for node in started:
        node.kill()
        node.wait()


def end(node):
    node.kill()
    node.wait()


def test_the_same_size_is_up_already(nodes):
    first = cluster.up(3, 2)
    assert cluster.up(3, 2) == first
    assert len(nodes) == 3
    assert first.num_alive == 3


@pytest.mark.parametrize(("size", "cpus"), [(2, 2), (4, 2), (3, 1)])
def test_another_size_is_rejected(size, cpus):
    first = cluster.up(3, 2)
    with pytest.raises(
        RunError, match=rf"--nodes 3 --cpus 2, not --nodes {size} --cpus {cpus}; `multicsr cluster down`"
    ):
        cluster.up(size, cpus)
    assert cluster.running() == first


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_cluster_that_lost_a_node_is_rejected_and_can_be_ended(nodes, lost):
    first = cluster.up(3, 2)
    end(nodes[lost])
    with pytest.raises(
        RunError, match=r"a part of a cluster is up at .*, 2 of 3 nodes; `multicsr cluster down` ends it"
    ):
        cluster.up(3, 2)
    cluster.down()
    assert not tagged(first.mark)
    assert cluster.running() is None


@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_start_that_was_killed_leaves_a_part_that_is_found(monkeypatch, nodes, before):
    """Killed after a node was started and before that was written down, too."""
    start = cluster.start_node
    up = os.fork()
    if up == 0:

        def killed(*arguments):
            pid = start(*arguments)
            if len(nodes) == before:
                os.kill(os.getpid(), signal.SIGKILL)
            return pid

        monkeypatch.setattr(cluster, "start_node", killed)
        cluster.up(3, 2)
        os._exit(0)
    assert os.waitpid(up, 0)[1] == signal.SIGKILL
    left = cluster.running()
    assert left is not None
    assert len(tagged(left.mark)) == before
    with pytest.raises(RunError, match=f"a part of a cluster is up at .*, {before - 1} of 3 nodes"):
        cluster.up(3, 2)
    cluster.down()
    assert not tagged(left.mark)


def test_a_node_that_does_not_start_leaves_nothing(monkeypatch, nodes):
    monkeypatch.setattr(cluster, "alive", lambda cluster: [])
    monkeypatch.setattr(cluster, "_START_S", 0.1)
    with pytest.raises(RunError, match="a Ray node did not start within"):
        cluster.up(3, 2)
    assert [node.wait(10) for node in nodes] == [-signal.SIGTERM]
    assert not (cluster.state_folder() / "cluster.json").exists()


def test_two_commands_at_once_are_rejected():
    with cluster._locked(), pytest.raises(RunError, match="another `multicsr cluster` command is running"):
        cluster.up(3, 2)
    assert carries(cluster.up(3, 2).nodes[0].pid, cluster.running().mark)


@pytest.mark.parametrize(
    "answer", [b"[]", b"null", b"half of {", b'{"data": {"result": {"result": [7]}}}', None]
)
def test_what_answers_otherwise_than_a_head_is_no_node(tmp_path, answer):
    """Such as another program that listens at the port of a head that has ended."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"no HTTP\r\n" if answer is None else b"HTTP/1.0 200 OK\r\n\r\n" + answer)

        server.settimeout(10)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        token = tmp_path / "token"
        token.write_text("t")
        dashboard = f"http://127.0.0.1:{server.getsockname()[1]}"
        there = cluster.LocalCluster(
            id="i", address="a", dashboard=dashboard, token_file=token, folder=tmp_path
        )
        assert alive(there) == []
        thread.join(10)
