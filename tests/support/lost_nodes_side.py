"""Shards on a head and two nodes of a real cluster: python lost_nodes_side.py one|both|tasks|row FOLDER

Some of the nodes are killed in the middle of their work and replaced after a while. Writes what came of the
shards.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import ray
from ray.cluster_utils import Cluster

from multicsr.errors import RunError
from multicsr.execution.pool import Pool, map_items

LABELS = {"multicsr.io/role": "generate"}
SHARDS = 6
AWAY_S = 15.0
"""Longer than Ray needs to spend a number of retries on an actor that it has not yet declared dead."""


def main(kind, folder):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    os.environ["RAY_ADDRESS"] = cluster.address
    nodes = [add_node(cluster), add_node(cluster)]
    cluster.wait_for_nodes()
    ray.init(logging_level="error", log_to_driver=False)
    with ThreadPoolExecutor(1) as thread:  # the main thread starts nodes, which set signal handlers
        job = thread.submit(run, kind, folder)
        if kind != "row":
            reclaim(cluster, nodes[:1] if kind == "one" else nodes, folder)
        result = job.result()
    sys.stdout.write(f"{result}\n")
    ray.shutdown()
    cluster.shutdown()


def run(kind, folder):
    def work(shard):
        (folder / f"{shard.key}-{os.getpid()}").touch()
        if kind == "row" and shard.key == "s3":
            os._exit(1)
        time.sleep(1 if kind == "row" else 3)
        return shard.key

    shards = [SimpleNamespace(key=f"s{number}") for number in range(SHARDS)]
    pool = Pool(None if kind == "tasks" else 2, cpus=1, nodes=LABELS)
    try:
        return " ".join(sorted(map_items("generate", lambda: work, shards, pool)))
    except RunError as error:
        return f"error: {error}"


def add_node(cluster):
    return cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20, labels=LABELS)


def reclaim(cluster, lost, folder):
    """Kill nodes once two shards are under way; others come in their place."""
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.05)
    for node in lost:
        cluster.remove_node(node, allow_graceful=False)
    time.sleep(AWAY_S)
    for _ in lost:
        add_node(cluster)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
