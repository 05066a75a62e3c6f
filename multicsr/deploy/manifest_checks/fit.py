"""Preflight check: every stage must fit some node group of the cluster.

Ray would wait without end for a node that no group can supply.
"""

from collections.abc import Iterable, Sequence

from multicsr.deploy.manifest_checks.node_groups import HEAD, NodeGroup
from multicsr.deploy.resources import ResourceRequest
from multicsr.errors import ConfigError

_EPSILON = 1e-9
"""Tolerance of comparisons: Ray counts resources in ten-thousandths, so three thirds of a GPU fit on one."""


def preflight(requests: Sequence[ResourceRequest], groups: Sequence[NodeGroup]) -> None:
    """Raise if a request of a job would wait without end.

    Args:
        requests: resources that the stages of the job ask Ray for.
        groups: node groups of the cluster.

    Raises:
        ConfigError: a request fits no group, or asks for more pieces than the fitting groups hold at full
            size. The message names the request and the group that comes nearest.
    """
    problems = [problem for request in requests for problem in _problems(request, groups)]
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)))


def _problems(request: ResourceRequest, groups: Sequence[NodeGroup]) -> Iterable[str]:
    wanted = f"{request.stage}: {request.what} asks for {_size(request)}"
    fitting = [group for group in groups if not _lacks(request, group)]
    if not fitting and not groups:
        yield f"{wanted}; the cluster has no group"
    elif not fitting:
        nearest = min(groups, key=lambda group: _distance(request, group))
        lacks = ", ".join(_lacks(request, nearest))
        yield (
            f"{wanted}; no group fits, {nearest.name} comes nearest: {lacks}; "
            f"change the section {request.stage}, or the group"
        )
    elif (capacity := sum(_pieces(request, group) for group in fitting)) < request.count:
        names = " and ".join(group.name for group in fitting)
        yield (
            f"{wanted}, {request.count} at a time; {names} at full size holds {capacity}: "
            f"ask for fewer in the section {request.stage}, or let the group grow further"
        )


def _size(request: ResourceRequest) -> str:
    labels = " and ".join(f"{key}={value}" for key, value in request.labels.items())
    return f"{request.cpus:g} CPU and {request.gpus:g} GPU" + (f" on {labels}" if labels else "")


def _lacks(request: ResourceRequest, group: NodeGroup) -> list[str]:
    """Return the reasons why a piece of a request does not fit a group's nodes; empty if it fits."""
    lacks = []
    for key, value in request.labels.items():
        if (has := group.labels.get(key)) != value:
            lacks.append(f"its {key} is {has}" if has else f"it has no label {key}")
    for name, asked, offered in (("CPU", request.cpus, group.cpus), ("GPU", request.gpus, group.gpus)):
        if asked > offered + _EPSILON:
            lacks.append(f"it offers {offered:g} {name} a node")
    return [*lacks, *(["it has no node"] if group.max < 1 else [])]


def _distance(request: ResourceRequest, group: NodeGroup) -> tuple[bool, int, float]:
    """Return a sort key: the head last, then the number of reasons, then the missing CPUs and GPUs."""
    missing = max(request.cpus - group.cpus, 0) + max(request.gpus - group.gpus, 0)
    return group.name == HEAD, len(_lacks(request, group)), missing


def _pieces(request: ResourceRequest, group: NodeGroup) -> int:
    """Return the number of pieces of a request that a group at full size holds."""
    pairs = ((request.cpus, group.cpus), (request.gpus, group.gpus))
    per_node = [int(offered / asked + _EPSILON) for asked, offered in pairs if asked]
    return min(per_node, default=request.count) * group.max
