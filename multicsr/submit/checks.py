"""What is looked at before anything is created: the manifest, and whether every stage fits some node."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from multicsr.errors import ConfigError
from multicsr.kube.documents import Document
from multicsr.kube.groups import Group, groups
from multicsr.kube.preflight import preflight
from multicsr.kube.rules import check
from multicsr.resources import requests_of
from multicsr.submit.jobs import Say
from multicsr.submit.parcel import Parcel


def check_manifests(made: Sequence[Document], overlay: Sequence[Document]) -> None:
    """What will be created, beside what else the overlay makes.

    Raises:
        ConfigError: the first finding, and how many there are.
    """
    around = [document for document in overlay if document.get("kind") not in ("RayJob", "RayCluster")]
    if findings := check([*made, *around]):
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise ConfigError(f"--overlay: {findings[0]}{more}")


def check_groups(parcel: Parcel, ray_job: Document) -> None:
    """Ray waits for ever for a node that no group can be.

    Raises:
        ConfigError: a stage fits no worker group.
    """
    spec = ray_job.get("spec")
    cluster = spec.get("rayClusterSpec") if isinstance(spec, dict) else None
    if isinstance(cluster, dict):
        preflight(requests_of(parcel.config, parcel.job), groups(cluster))


def look_at_nodes(parcel: Parcel, nodes: Sequence[Any], say: Say) -> None:
    """Say when a stage fits no node that is up now: then only an autoscaler, if there is one, would help."""
    try:
        preflight(requests_of(parcel.config, parcel.job), groups_of_nodes(nodes))
    except ConfigError as error:
        say(f"note: of the nodes that are up now none would do: {error}; without an autoscaler the job waits")


def groups_of_nodes(nodes: Sequence[Any]) -> list[Group]:
    """Ray's NodeStates; equal ones are a group."""
    kinds = Counter(
        (
            float(node.resources_total.get("CPU", 0)),
            float(node.resources_total.get("GPU", 0)),
            int(node.resources_total.get("memory", 0)),
            tuple(sorted((key, value) for key, value in (node.labels or {}).items() if "node-id" not in key)),
        )
        for node in nodes
    )
    return [
        Group(f"{count} nodes with {cpus:g} CPU", cpus, gpus, memory, dict(labels), count, count)
        for (cpus, gpus, memory, labels), count in kinds.items()
    ]
