"""An item that ends its process or its node too often ends the job; a node that is lost does not."""

from types import SimpleNamespace

import pytest
import ray
from ray.experimental import internal_kv

from multicsr.errors import RunError
from multicsr.execution.attempts import Attempts


@pytest.fixture
def cluster(monkeypatch):
    """The memory of a head, and its nodes: the one that the process is on, and which are alive."""
    memory, state = {}, SimpleNamespace(here="a", alive={"a", "b"}, memory={})

    def put(key, value, namespace):
        memory[namespace, key] = value

    monkeypatch.setattr(internal_kv, "_internal_kv_put", put)
    monkeypatch.setattr(internal_kv, "_internal_kv_get", lambda key, namespace: memory.get((namespace, key)))
    monkeypatch.setattr(internal_kv, "_internal_kv_del", lambda key, namespace: memory.pop((namespace, key)))
    monkeypatch.setattr(
        ray, "nodes", lambda: [{"NodeID": n, "Alive": n in state.alive} for n in "abcdefghijklm"]
    )
    monkeypatch.setattr(
        ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: state.here), raising=False
    )
    state.memory = memory
    return state


def test_an_item_that_ends_its_process_three_times_ends_the_job(cluster):
    attempts = Attempts("generate")
    for _ in range(3):
        attempts.begin(7, "shard x")
    with pytest.raises(
        RunError, match="generate: the worker died 3 times on shard x; the shards done so far"
    ):
        attempts.begin(7, "shard x")
    attempts.begin(8, "shard y")


def test_lost_nodes_are_not_the_items_doing(cluster):
    attempts = Attempts("generate")
    for node in "abcdefghi":
        cluster.here, cluster.alive = node, {node}
        attempts.begin(7, "shard x")
    for _ in range(2):
        attempts.begin(7, "shard x")
    with pytest.raises(RunError, match="the worker died 3 times"):
        attempts.begin(7, "shard x")


def test_an_item_under_which_ten_nodes_are_lost_ends_the_job(cluster):
    attempts = Attempts("generate")
    for node in "abcdefghij":
        cluster.here, cluster.alive = node, {node}
        attempts.begin(7, "shard x")
    cluster.alive = {"k"}
    with pytest.raises(RunError, match="generate: 10 nodes were lost at work on shard x"):
        attempts.begin(7, "shard x")


def test_what_ended_well_counts_no_more(cluster):
    attempts = Attempts("generate")
    for _ in range(5):
        attempts.begin(7, "shard x")
        attempts.end(7)
    assert cluster.memory == {}


def test_another_job_counts_for_itself(cluster):
    for _ in range(5):
        Attempts("generate").begin(7, "shard x")
