"""Rules of this project for a Ray cluster: service accounts, placement of the work, and images."""

import re
from collections.abc import Iterator
from importlib.metadata import version

from multicsr.deploy.manifest_checks.documents import (
    Document,
    Template,
    at,
    clusters_of,
    containers_of,
    items,
    mapping,
    templates_of,
)
from multicsr.deploy.resources import ROLE_LABEL, ROLES

_HEAD_ACCOUNT, _WORKER_ACCOUNT = "multicsr-head", "multicsr-worker"
_RAY_IN_TAG = re.compile(r"(?<![A-Za-z0-9])ray(\d+\.\d+\.\d+)(?![0-9.])")


def project_problems(document: Document) -> Iterator[str]:
    """Yield what breaks this project's own rules, paths from the document's root."""
    for path, cluster in clusters_of(document):
        yield from _head(f"{path}.headGroupSpec", at(cluster, "headGroupSpec"))
        for place, group in enumerate(items(cluster.get("workerGroupSpecs"))):
            yield from _workers(f"{path}.workerGroupSpecs.{place}", group)
        if cluster.get("rayVersion") != version("ray"):
            yield f"{path}.rayVersion: is {cluster.get('rayVersion')}, the installed Ray is {version('ray')}"
    for template in templates_of(document):
        yield from _place(template)
        yield from _images(template)


def _head(path: str, group: Document) -> Iterator[str]:
    if at(group, "rayStartParams").get("num-cpus", at(group, "resources").get("CPU")) != "0":
        yield f'{path}.rayStartParams: num-cpus must be "0"; work on the head can take the whole job down'
    pod = at(group, "template.spec")
    if pod.get("serviceAccountName") != _HEAD_ACCOUNT:
        yield f"{path}.template.spec.serviceAccountName: must be {_HEAD_ACCOUNT}"
    first = (items(pod.get("containers")) or [{}])[0]
    asked, allowed = (at(first, f"resources.{side}").get("memory") for side in ("requests", "limits"))
    if asked != allowed:
        yield f"{path}.template.spec.containers.0.resources: memory requested and allowed must be one"


def _workers(path: str, group: Document) -> Iterator[str]:
    pod = at(group, "template.spec")
    if pod.get("serviceAccountName") != _WORKER_ACCOUNT:
        yield f"{path}.template.spec.serviceAccountName: must be {_WORKER_ACCOUNT}"
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{path}.template.spec.automountServiceAccountToken: must be false"
    if (role := at(group, "labels").get(ROLE_LABEL)) not in ROLES:
        yield f"{path}.labels: {ROLE_LABEL} is {role}; it must be one of {', '.join(ROLES)}"
    gpus = [name for container in items(pod.get("containers")) for name in _gpus(container)]
    offered = mapping(group.get("resources"))
    if gpus and (offered.get("CPU") or at(group, "rayStartParams").get("num-cpus")) != "0":
        yield f'{path}.resources.CPU: must be "0" beside a GPU, or tasks that need no GPU keep the node'
    if not gpus and str(offered.get("GPU", "0")) != "0":
        yield f"{path}.resources.GPU: promised to Ray, but no container asks for nvidia.com/gpu"


def _gpus(container: Document) -> list[str]:
    return [name for name in at(container, "resources.limits") if str(name).endswith("/gpu")]


def _place(template: Template) -> Iterator[str]:
    """Yield the problems of a pod template's tolerations.

    Spot nodes can vanish, so only the role `generate` may use them: there a lost node costs a shard.
    """
    where = f"{template.where}.spec.tolerations"
    writes = template.part == "worker" and at(template.group, "labels").get(ROLE_LABEL) == "generate"
    for place, toleration in enumerate(items(template.spec.get("tolerations"))):
        if "spot" in f"{toleration.get('key')} {toleration.get('value')}" and not writes:
            yield f"{where}.{place}: spot nodes are for the role generate only"
    keys = [toleration.get("key") for toleration in items(template.spec.get("tolerations"))]
    wants = any(_gpus(container) for _, container in containers_of(template))
    if wants and "nvidia.com/gpu" not in keys:
        yield f"{where}: asks for a GPU but does not tolerate the taint nvidia.com/gpu"


def _images(template: Template) -> Iterator[str]:
    """Yield the problems of a pod template's images.

    Ray connects only to its own version, so the tag of the Ray container's image must name the version.
    """
    for path, container in containers_of(template):
        image = str(container.get("image", ""))
        tag = image.rpartition("/")[2].partition(":")[2]
        if not path.endswith("spec.containers.0"):
            if tag in ("", "latest"):
                yield f"{path}.image: {image!r} has a mutable tag or none; name a version"
            continue
        found = _RAY_IN_TAG.search(tag)
        if found is None:
            yield f"{path}.image: the tag of {image!r} must name Ray's version, such as 0.1.0-ray2.60.0-cpu"
        elif found[1] != version("ray"):
            yield f"{path}.image: has Ray {found[1]}, the installed Ray is {version('ray')}"
        if _gpus(container) and tag.endswith("-cpu"):
            yield f"{path}.image: {image} is built for CPUs, but the container asks for a GPU"
