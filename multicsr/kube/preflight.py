"""Does every stage fit some group? Ray waits for ever for a node that no group could ever be."""

from collections.abc import Iterable, Sequence

from multicsr.errors import ConfigError
from multicsr.kube.groups import HEAD, Group
from multicsr.resources import Request

_EPSILON = 1e-9
"""Ray counts resources in ten-thousandths; thirds of a GPU add up to one all the same."""


def preflight(requests: Sequence[Request], groups: Sequence[Group]) -> None:
    """Refuse a job that would wait for ever, naming the request and the group that comes nearest."""
    problems = [problem for request in requests for problem in _problems(request, groups)]
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)))


def _problems(request: Request, groups: Sequence[Group]) -> Iterable[str]:
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
    elif (room := sum(_pieces(request, group) for group in fitting)) < request.count:
        names = " and ".join(group.name for group in fitting)
        yield (
            f"{wanted}, {request.count} at a time; {names} at full size holds {room}: "
            f"ask for fewer in the section {request.stage}, or let the group grow further"
        )


def _size(request: Request) -> str:
    labels = " and ".join(f"{key}={value}" for key, value in request.labels.items())
    return f"{request.cpus:g} CPU and {request.gpus:g} GPU" + (f" on {labels}" if labels else "")


def _lacks(request: Request, group: Group) -> list[str]:
    """What keeps a piece out of a group's nodes; nothing: it fits."""
    lacks = []
    for key, value in request.labels.items():
        if (has := group.labels.get(key)) != value:
            lacks.append(f"its {key} is {has}" if has else f"it has no label {key}")
    for name, asked, offered in (("CPU", request.cpus, group.cpus), ("GPU", request.gpus, group.gpus)):
        if asked > offered + _EPSILON:
            lacks.append(f"it offers {offered:g} {name} a node")
    return [*lacks, *(["it has no node"] if group.max < 1 else [])]


def _distance(request: Request, group: Group) -> tuple[bool, int, float]:
    """The head last; then by how many things are wrong, then by how much is missing."""
    missing = max(request.cpus - group.cpus, 0) + max(request.gpus - group.gpus, 0)
    return group.name == HEAD, len(_lacks(request, group)), missing


def _pieces(request: Request, group: Group) -> int:
    """How many pieces a group at full size holds."""
    pairs = ((request.cpus, group.cpus), (request.gpus, group.gpus))
    per_node = [int(offered / asked + _EPSILON) for asked, offered in pairs if asked]
    return min(per_node, default=request.count) * group.max
