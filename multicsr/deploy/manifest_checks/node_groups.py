"""Node groups of a Ray cluster, as Ray's own autoscaler reads them from the resource.

The reader is private to Ray, so this is the only module that imports it.
"""

from collections.abc import Mapping
from typing import NamedTuple

from multicsr.deploy.manifest_checks.documents import Document, items
from multicsr.errors import ConfigError


class NodeGroup(NamedTuple):
    """Nodes of one kind: the resources that each offers to Ray, and the limits of their number."""

    name: str
    cpus: float
    gpus: float
    memory: int
    """Bytes."""
    labels: Mapping[str, str]
    min: int
    max: int


HEAD = "headgroup"
"""Ray's name for the head's group."""


_UNREADABLE = (KeyError, IndexError, ValueError, TypeError, AttributeError, AssertionError)
"""Exceptions that Ray's reader raises on a resource that it cannot read."""


def node_types(cluster_spec: Document) -> dict[str, dict[str, object]]:
    """Return the node types that the autoscaler of this cluster would use, by group.

    Raises:
        ConfigError: Ray's reader cannot read the spec.
    """
    from ray.autoscaler._private.kuberay import autoscaling_config

    try:
        found = autoscaling_config._generate_available_node_types_from_ray_cr_spec(cluster_spec)
    except _UNREADABLE as error:
        raise _config_error(error) from None
    types: dict[str, dict[str, object]] = found
    return types


def groups(cluster_spec: Document) -> list[NodeGroup]:
    """Return the head's group and the worker groups, in their order.

    The head is one node. Without the autoscaler the number of nodes of every group is fixed.

    Raises:
        ConfigError: Ray's reader cannot read the spec.
    """
    scales = bool(cluster_spec.get("enableInTreeAutoscaling"))
    workers = items(cluster_spec.get("workerGroupSpecs"))
    fixed = {HEAD: 1} | {str(group.get("groupName")): _fixed(group) for group in workers}
    try:
        found = [_group(str(name), node) for name, node in node_types(cluster_spec).items()]
    except _UNREADABLE as error:
        raise _config_error(error) from None
    sizes = {HEAD: 1} if scales else fixed
    return [
        group._replace(min=sizes[group.name], max=sizes[group.name]) if group.name in sizes else group
        for group in found
    ]


def _fixed(group: Document) -> int:
    """Return the number of nodes of a worker group that no autoscaler scales."""
    count, hosts = group.get("replicas", group.get("minReplicas")), group.get("numOfHosts", 1)
    return count * hosts if isinstance(count, int) and isinstance(hosts, int) else 0


def _group(name: str, node: Mapping[str, object]) -> NodeGroup:
    offered, labels = node["resources"], node["labels"]
    if not isinstance(offered, Mapping) or not isinstance(labels, Mapping):
        raise TypeError("resources and labels must be mappings")
    return NodeGroup(
        name,
        float(offered.get("CPU", 0)),
        float(offered.get("GPU", 0)),
        int(offered.get("memory", 0)),
        {str(key): str(value) for key, value in labels.items()},
        int(str(node["min_workers"])),
        int(str(node["max_workers"])),
    )


def _config_error(error: Exception) -> ConfigError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ConfigError(f"Ray cannot read the cluster's groups: {reason}")
