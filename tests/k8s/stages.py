"""Run against a cluster from nothing: asks as a job's stages ask, one after the other, and tells the nodes.

python stages.py ADDRESS REQUESTS; a line of JSON for each stage, and one when all is quiet again.
"""

import json
import sys
import time

import ray

QUIET_S = 120


def roles():
    """Roles of the nodes that are there, the head apart."""
    found = [node["Labels"].get("multicsr.io/role") for node in ray.nodes() if node["Alive"]]
    return sorted(role for role in found if role)


@ray.remote
class Piece:
    """Holds what was asked for, and says where it is."""

    def role(self):
        return ray.get_runtime_context().get_node_labels().get("multicsr.io/role")


def tell(**event):
    sys.stdout.write(json.dumps(event | {"at_s": round(time.monotonic() - START, 1)}) + "\n")
    sys.stdout.flush()


def main(address, requests):
    ray.init(address=address, log_to_driver=False)
    tell(stage="start", roles=roles())
    for stage, cpus, gpus, labels in requests:
        before = set(roles())
        piece = Piece.options(num_cpus=cpus, num_gpus=gpus, label_selector=labels).remote()
        on = ray.get(piece.role.remote(), timeout=QUIET_S)
        tell(stage=stage, on=on, roles=roles(), came=sorted(set(roles()) - before))
        ray.kill(piece)
    deadline = time.monotonic() + QUIET_S
    while roles() and time.monotonic() < deadline:
        time.sleep(0.5)
    tell(stage="end", roles=roles())


if __name__ == "__main__":
    START = time.monotonic()
    main(sys.argv[1], json.loads(sys.argv[2]))
