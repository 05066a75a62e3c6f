"""Checks before anything is created: the manifests, and that every stage fits some node."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from multicsr.deploy.manifest_checks.check import check
from multicsr.deploy.manifest_checks.documents import Document
from multicsr.deploy.manifest_checks.fit import preflight
from multicsr.deploy.manifest_checks.node_groups import NodeGroup, groups
from multicsr.deploy.resources import requests_of
from multicsr.deploy.submit.bundle import Bundle
from multicsr.deploy.submit.job import Echo
from multicsr.errors import ConfigError


def check_manifests(made: Sequence[Document], overlay: Sequence[Document]) -> None:
    """Check the documents that will be created, together with the other documents of the overlay.

    Args:
        made: documents that will be created for the job.
        overlay: all documents of the rendered overlay; its RayJobs and RayClusters are left out.

    Raises:
        ConfigError: a rule is broken; the message holds the first finding and the number of further ones.
    """
    around = [document for document in overlay if document.get("kind") not in ("RayJob", "RayCluster")]
    if findings := check([*made, *around]):
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise ConfigError(f"--overlay: {findings[0]}{more}")


def check_groups(bundle: Bundle, ray_job: Document) -> None:
    """Raise if a stage fits no worker group: Ray would wait forever for a node that no group can provide.

    Raises:
        ConfigError: a stage fits no worker group.
    """
    spec = ray_job.get("spec")
    cluster = spec.get("rayClusterSpec") if isinstance(spec, dict) else None
    if isinstance(cluster, dict):
        preflight(requests_of(bundle.config, bundle.job), groups(cluster))


def look_at_nodes(bundle: Bundle, nodes: Sequence[Any], echo: Echo) -> None:
    """Print a note if a stage fits no node that runs now.

    This is no error, because an autoscaler, if there is one, may add a node that fits.
    """
    try:
        preflight(requests_of(bundle.config, bundle.job), groups_of_nodes(nodes))
    except ConfigError as error:
        echo(f"note: no node that is up now is sufficient: {error}; without an autoscaler the job waits")


def groups_of_nodes(nodes: Sequence[Any]) -> list[NodeGroup]:
    """Return Ray's nodes as groups of nodes with equal resources and labels.

    Args:
        nodes: Ray's NodeState of each node.
    """
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
        NodeGroup(f"{count} nodes with {cpus:g} CPU", cpus, gpus, memory, dict(labels), count, count)
        for (cpus, gpus, memory, labels), count in kinds.items()
    ]
