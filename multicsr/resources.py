"""What a job asks of Ray: how many pieces of which size, on which nodes.

Ray waits for ever for a node that no group of a cluster could ever be; so this is compared with the groups
before anything starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from multicsr.config import Config

JOBS = ("ingest", "generate", "curate", "train", "evaluate", "refresh")
"""Every job; `refresh` does what all the others do."""
JOB_LABEL = "multicsr.io/job"
"""On what runs a job: which."""
ROLE_LABEL = "multicsr.io/role"
"""Ray's label of a node: what it is for, one of ROLES."""
ROLES = ("cpu", "generate", "train")


@dataclass(frozen=True)
class Request:
    """So many pieces of one size, all at the same time."""

    stage: str
    what: str
    """Such as `an actor`, for messages."""
    count: int
    cpus: float
    gpus: float
    labels: Mapping[str, str] = field(default_factory=dict)
    """Ray labels that a node must have; none: any node."""


def requests_of(config: Config, job: str) -> list[Request]:
    """What a job asks for: that of every stage it runs, in their order."""
    generate, train = config.generate, config.train
    task = Request("ingest", "a task", 1, 1, 0)
    asked = {
        "ingest": [task],
        "generate": [
            replace(task, stage="generate"),
            Request(
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
            Request(
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
