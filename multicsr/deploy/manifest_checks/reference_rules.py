"""Rule for references: every name that a document uses must be made by some document."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from multicsr.deploy.manifest_checks.documents import (
    Document,
    at,
    containers_of,
    items,
    labels_of,
    mapping,
    name_of,
    templates_of,
)

CONFIG_MAP = "multicsr-config"
"""Name in the templates for the ConfigMap that `multicsr submit` makes for each job."""

PLATFORM = frozenset(
    {
        ("Namespace", "multicsr"),
        ("ServiceAccount", "multicsr-head"),
        ("ServiceAccount", "multicsr-worker"),
        ("PriorityClass", "multicsr-head"),
        ("PriorityClass", "multicsr-train"),
        ("PriorityClass", "multicsr-work"),
        ("Role", "multicsr-submit"),
    }
)
"""Objects that k8s/base makes, once, as (kind, name).

Jobs are checked without the documents of k8s/base; a test compares this set with them.
"""

ELSEWHERE = "multicsr.io/made-elsewhere"
"""Annotation that lists what a document uses and no manifest may or can hold, as `Secret/registry, ...`."""
_GIVEN = frozenset({("ServiceAccount", "default"), ("ConfigMap", CONFIG_MAP)})
_OPERATORS_LABELS = ("ray.io/cluster", "ray.io/node-type", "ray.io/group")


class Use(NamedTuple):
    """Use of another object in a document: its path, and the kind and name of the object."""

    where: str
    kind: str
    name: str


def reference_problems(documents: Sequence[Document]) -> Iterator[tuple[Document, str]]:
    """Yield the uses of objects that nobody makes, and selectors without pods, each with its document."""
    made = PLATFORM | _GIVEN | {(str(document.get("kind")), name_of(document)) for document in documents}
    made |= {pair for document in documents for pair in _made_elsewhere(document)}
    for document in documents:
        for where, kind, name in uses_of(document):
            if (kind, name) not in made:
                yield document, f"{where}: no {kind} is called {name}"
    yield from _selectors(documents)


def _made_elsewhere(document: Document) -> Iterator[tuple[str, str]]:
    for word in str(at(document, "metadata.annotations").get(ELSEWHERE, "")).split(","):
        kind, slash, name = word.strip().partition("/")
        if slash:
            yield kind, name


def uses_of(document: Document) -> Iterator[Use]:
    """Yield the uses of other objects by a document's pods, bindings and queues."""
    for template in templates_of(document):
        path = f"{template.where}.spec"
        for key, kind in (("serviceAccountName", "ServiceAccount"), ("priorityClassName", "PriorityClass")):
            if key in template.spec:
                yield Use(f"{path}.{key}", kind, str(template.spec[key]))
        for secret in items(template.spec.get("imagePullSecrets")):
            yield Use(f"{path}.imagePullSecrets", "Secret", str(secret.get("name")))
        for volume in items(template.spec.get("volumes")):
            yield from _of_volume(f"{path}.volumes", volume)
        for where, container in containers_of(template):
            yield from _of_environment(where, container)
    yield from _of_bindings(document)
    yield from _of_queues(document)


def _of_volume(where: str, volume: Document) -> Iterator[Use]:
    for source in (volume, *items(at(volume, "projected").get("sources"))):
        for key, kind, name in (
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName" if source is volume else "name"),
            ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
        ):
            if key in source and not at(source, key).get("optional"):
                yield Use(where, kind, str(at(source, key).get(name)))


def _of_environment(where: str, container: Document) -> Iterator[Use]:
    for source in items(container.get("envFrom")):
        yield from _of_keys(f"{where}.envFrom", source, "configMapRef", "secretRef")
    for entry in items(container.get("env")):
        yield from _of_keys(f"{where}.env", at(entry, "valueFrom"), "configMapKeyRef", "secretKeyRef")


def _of_keys(where: str, source: Document, config_map: str, secret: str) -> Iterator[Use]:
    for key, kind in ((config_map, "ConfigMap"), (secret, "Secret")):
        if key in source and not at(source, key).get("optional"):
            yield Use(where, kind, str(at(source, key).get("name")))


def _of_bindings(document: Document) -> Iterator[Use]:
    if document.get("kind") in ("RoleBinding", "ClusterRoleBinding"):
        role = at(document, "roleRef")
        yield Use("roleRef", str(role.get("kind")), str(role.get("name")))
        for subject in items(document.get("subjects")):
            if subject.get("kind") == "ServiceAccount":
                yield Use("subjects", "ServiceAccount", str(subject.get("name")))


def _of_queues(document: Document) -> Iterator[Use]:
    if (queue := labels_of(document).get("kueue.x-k8s.io/queue-name")) is not None:
        yield Use("metadata.labels", "LocalQueue", str(queue))
    spec = at(document, "spec")
    if document.get("kind") == "LocalQueue":
        yield Use("spec.clusterQueue", "ClusterQueue", str(spec.get("clusterQueue")))
    if document.get("kind") == "ClusterQueue":
        for group in items(spec.get("resourceGroups")):
            for flavor in items(group.get("flavors")):
                yield Use("spec.resourceGroups", "ResourceFlavor", str(flavor.get("name")))


def _selectors(documents: Sequence[Document]) -> Iterator[tuple[Document, str]]:
    """Yield the policies that select no pod, and so protect nothing, and node types that do not exist.

    Selectors are checked only where there are pods to select.
    """
    pods = [mapping(template.metadata.get("labels")) for each in documents for template in templates_of(each)]
    keys = {"NetworkPolicy": "podSelector", "PodDisruptionBudget": "selector"}
    for document in documents:
        key = keys.get(str(document.get("kind")))
        selector = at(document, f"spec.{key}") if key and pods else {}
        wanted = {k: v for k, v in mapping(selector.get("matchLabels")).items() if k not in _OPERATORS_LABELS}
        if wanted and not any(wanted.items() <= pod.items() for pod in pods):
            yield document, f"spec.{key}: selects no pod: {wanted}"
        if mapping(selector.get("matchLabels")).get("ray.io/node-type", "head") not in ("head", "worker"):
            yield document, f"spec.{key}: ray.io/node-type is head or worker"
