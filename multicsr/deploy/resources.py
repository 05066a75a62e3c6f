"""Resource requests of each job to Ray: how many bundles of which size, on which nodes.

Ray waits forever for a node that no group of the cluster can provide. Therefore these requests are compared
with the node groups before anything starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from multicsr.config import Config

JOBS = ("ingest", "generate", "curate", "train", "evaluate", "refresh")
"""Kinds of jobs. `refresh` runs the stages of all the others."""
JOB_LABEL = "multicsr.io/job"
"""Label, and metadata key, that holds the kind of a job: one of JOBS."""
ROLE_LABEL = "multicsr.io/role"
"""Ray node label that holds the purpose of a node: one of ROLES."""
ROLES = ("cpu", "generate", "train")


@dataclass(frozen=True)
class ResourceRequest:
    """A request for `count` identical resource bundles, all needed at the same time."""

    stage: str
    what: str
    """Name of one bundle in messages, such as `an actor`."""
    count: int
    cpus: float
    gpus: float
    labels: Mapping[str, str] = field(default_factory=dict)
    """Ray labels that a node must have; empty if any node will do."""


def requests_of(config: Config, job: str) -> list[ResourceRequest]:
    """Return the resource requests of all stages that a job runs, in the order of the stages."""
    generate, train = config.generate, config.train
    task = ResourceRequest("ingest", "a task", 1, 1, 0)
    asked = {
        "ingest": [task],
        "generate": [
            replace(task, stage="generate"),
            ResourceRequest(
                "generate",
                "an actor",
                generate.actors,
                generate.cpus_per_actor,
                generate.gpus_per_actor,
                generate.nodes,
            ),
        ],
        "curate": [replace(task, stage="curate")],
        "train": [
            replace(task, stage="train"),
            ResourceRequest(
                "train",
                "a worker",
                train.min_workers or train.workers,
                train.cpus_per_worker,
                train.gpus_per_worker,
                train.nodes,
            ),
        ],
        "evaluate": [],
    }
    if job == "refresh":
        return [request for stage in asked.values() for request in stage]
    return asked[job]
