"""Rendered manifests, and functions that read their parts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

Document = Mapping[str, object]
"""One Kubernetes object, as parsed from YAML."""


class Template(NamedTuple):
    """A pod template in a document."""

    where: str
    """Its path, such as `spec.headGroupSpec.template`."""
    part: str
    """head, worker, submitter or other."""
    metadata: Document
    spec: Document
    group: Document
    """The worker group or head group that it belongs to, else empty."""


def mapping(value: object) -> Document:
    """Return the value if it is a mapping, else an empty one; other checks report a wrong shape."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> list[Document]:
    """Return the items of a list, each by `mapping`; an empty list if `value` is no list."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return [mapping(item) for item in value] if listed and isinstance(value, Sequence) else []


def at(document: Document, path: str) -> Document:
    """Return the mapping at a dotted path, else an empty one."""
    for key in path.split("."):
        document = mapping(document.get(key))
    return document


def name_of(document: Document) -> str:
    """Return `metadata.name`, or an empty string."""
    return str(at(document, "metadata").get("name", ""))


def labels_of(document: Document) -> Document:
    """Return `metadata.labels`, or an empty mapping."""
    return at(document, "metadata.labels")


def title_of(document: Document) -> str:
    """Return kind and name, for messages."""
    return f"{document.get('kind', 'a document without kind')} {name_of(document)}".strip()


def clusters_of(document: Document) -> Iterator[tuple[str, Document]]:
    """Yield path and spec of the Ray cluster that a document describes, if it describes one."""
    if document.get("kind") == "RayCluster":
        yield "spec", at(document, "spec")
    elif document.get("kind") == "RayJob" and "rayClusterSpec" in at(document, "spec"):
        yield "spec.rayClusterSpec", at(document, "spec.rayClusterSpec")


def templates_of(document: Document) -> Iterator[Template]:
    """Yield every pod template of a document, those of its Ray cluster first."""
    for path, cluster in clusters_of(document):
        head = at(cluster, "headGroupSpec")
        yield _template(f"{path}.headGroupSpec.template", "head", head)
        for place, group in enumerate(items(cluster.get("workerGroupSpecs"))):
            yield _template(f"{path}.workerGroupSpecs.{place}.template", "worker", group)
    spec = at(document, "spec")
    kind = document.get("kind")
    if kind == "RayJob" and "submitterPodTemplate" in spec:
        template = {"template": spec["submitterPodTemplate"]}
        yield _template("spec.submitterPodTemplate", "submitter", template)
    elif kind == "CronJob":
        yield _template("spec.jobTemplate.spec.template", "other", at(spec, "jobTemplate.spec"))
    elif kind in ("Job", "Deployment", "StatefulSet", "DaemonSet"):
        yield _template("spec.template", "other", spec)


def _template(where: str, part: str, owner: Document) -> Template:
    group = owner if part in ("head", "worker") else {}
    return Template(where, part, at(owner, "template.metadata"), at(owner, "template.spec"), group)


def containers_of(template: Template) -> Iterator[tuple[str, Document]]:
    """Yield path and definition of every container, init containers included."""
    for key in ("initContainers", "containers"):
        for place, container in enumerate(items(template.spec.get(key))):
            yield f"{template.where}.spec.{key}.{place}", container
