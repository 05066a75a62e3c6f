"""The start of a node's process, with another program in its place."""

import os

import pytest

from multicsr.deploy.local_cluster import node
from multicsr.deploy.local_cluster.process_registry import carries


@pytest.fixture
def start(monkeypatch, tmp_path):
    """A function that starts a program instead of Ray, and ends it after the test."""
    started = []
    popen = node.subprocess.Popen

    def run(command, **options):
        started.append(popen(["sleep", "60"], **options))
        return started[-1]

    monkeypatch.setattr(node.subprocess, "Popen", run)
    environment = {**os.environ, "MULTICSR_CLUSTER": "abc"}
    yield lambda: node.start_node([], [1, 2], environment, tmp_path / "log")
    for process in started:
        process.kill()
        process.wait()


def test_a_node_is_waited_for_until_it_can_be_recognised(start, monkeypatch):
    """Right after the start of a program the system shows no environment for a moment."""
    seen = []

    def environment_of(pid):
        seen.append(pid)
        return b"" if len(seen) < 3 else b"MULTICSR_CLUSTER=abc\0"

    monkeypatch.setattr(node, "_environment_of", environment_of)
    pid = start()
    assert seen == [pid] * 3


def test_a_node_carries_its_mark_as_soon_as_it_was_started(start):
    assert all(carries(start(), "MULTICSR_CLUSTER=abc") for _ in range(50))


def test_a_program_that_ends_at_once_is_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.setattr(node, "_environment_of", lambda pid: b"")
    monkeypatch.setattr(node.sys, "executable", "true")
    pid = node.start_node([], [1, 2], dict(os.environ), tmp_path / "log")
    assert not carries(pid, "PATH=" + os.environ["PATH"])
