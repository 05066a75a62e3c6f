"""Our RayCluster under Ray's own autoscaler: from nothing, a stage's groups come up, and they go when idle.

Real: the node types (Ray's reader makes them of the manifest), the autoscaler v2 with its scheduler, Ray's
nodes, labels and tokens. Not real: the nodes are processes here, with one CPU each and a GPU that is only a
number, and they count as idle after seconds.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from multicsr.config_file import load_config
from multicsr.deploy.manifest_checks.node_groups import HEAD, node_types
from multicsr.deploy.resources import requests_of
from tests.support.fake_nodes import HEAD_TYPE, FakeNodes
from tests.support.manifests import K8S, cluster_of, pick, written

pytestmark = pytest.mark.cluster

IDLE_S = 4.0
STAGES = Path(__file__).with_name("stages.py")


def _scaled_down(types):
    """The same groups, of a size that fits here. Memory is left out: it would be this machine's."""
    small = {}
    for name, node in types.items():
        offered = {key: value for key, value in node["resources"].items() if key != "memory"}
        offered["CPU"] = min(offered["CPU"], 1)
        fits = {"resources": offered | {"object_store_memory": 80_000_000}}
        small[HEAD_TYPE if name == HEAD else name] = node | fits | {"idle_timeout_s": IDLE_S}
    return small


@pytest.mark.slow  # Ray's autoscaler waits for idle nodes
def test_groups_come_up_for_the_stages_that_need_them_and_go_when_idle():
    job = pick(written("overlays/nightly/jobs.yaml"), "RayJob", "refresh")
    types = node_types(cluster_of(job))
    assert [types[name]["min_workers"] for name in ("cpu", "gpu-generate", "gpu-train")] == [0, 0, 0]
    config = load_config(K8S / "overlays/nightly/config.yaml")
    wanted = [(each.stage, each.cpus, each.gpus, each.labels) for each in requests_of(config, "refresh")]
    with FakeNodes(_scaled_down(types)) as nodes:
        command = [sys.executable, str(STAGES), nodes.address, json.dumps(wanted)]
        done = subprocess.run(command, env=nodes.environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"{done.stderr[-3000:]}\n{nodes.log('autoscaler')}"
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    start, *stages, end = events
    assert start["roles"] == [], events
    assert [(each["stage"], each["on"]) for each in stages] == [
        ("ingest", "cpu"),
        ("generate", "cpu"),
        ("generate", "generate"),
        ("curate", "cpu"),
        ("train", "cpu"),
        ("train", "train"),
    ], events
    # A stage brings up the group it needs, and no other.
    assert all(set(each["came"]) <= {each["on"]} for each in stages), events
    assert end["roles"] == [], events
