"""Rules for queues of Kueue. A job larger than its queue's quota waits without end, without an error."""

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal

from multicsr.deploy.manifest_checks.documents import Document, at, items, labels_of, name_of, templates_of
from multicsr.deploy.manifest_checks.model import is_quantity

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_MOST_POD_SETS = 18
_SUFFIXES = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def amount(quantity: object) -> Decimal:
    """Return a quantity as a number: 500m is 0.5, 1Ki is 1024; 0 if `quantity` is none."""
    text = str(quantity)
    if not is_quantity(quantity):
        return Decimal(0)
    if text.endswith("i"):
        return Decimal(text[:-2]) * Decimal(1024) ** (_SUFFIXES[text[-2].replace("K", "k")] // 3)
    if text[-1] in _SUFFIXES:
        return Decimal(text[:-1]).scaleb(_SUFFIXES[text[-1]])
    return Decimal(text)


def queue_problems(documents: Sequence[Document]) -> Iterator[tuple[Document, str]]:
    """Yield the problems of documents with a queue's label, each with the document it is in."""
    local = {name_of(each): each for each in documents if each.get("kind") == "LocalQueue"}
    shared = {name_of(each): each for each in documents if each.get("kind") == "ClusterQueue"}
    for document in documents:
        queue = labels_of(document).get(QUEUE_LABEL)
        if queue is None or document.get("kind") not in ("RayJob", "RayCluster"):
            continue
        for problem in _gang(document):
            yield document, problem
        name = str(at(local.get(str(queue), {}), "spec").get("clusterQueue"))
        if name in shared:
            for problem in _quota(document, shared[name]):
                yield document, problem


def _gang(document: Document) -> Iterator[str]:
    spec = at(document, "spec")
    cluster = at(document, "spec.rayClusterSpec") if document.get("kind") == "RayJob" else spec
    if cluster.get("enableInTreeAutoscaling"):
        yield "spec: Kueue admits a fixed size; turn enableInTreeAutoscaling off"
    if document.get("kind") == "RayJob" and not spec.get("shutdownAfterJobFinishes"):
        yield "spec.shutdownAfterJobFinishes: must be true in a queue of Kueue's"
    if "clusterSelector" in spec:
        yield "spec.clusterSelector: Kueue rejects it for a job in a queue"
    if len(list(templates_of(document))) > _MOST_POD_SETS:
        yield f"spec: Kueue takes at most {_MOST_POD_SETS} kinds of pods"


def needs_of(document: Document) -> Counter[str]:
    """Return the total of each resource that all pods of a job of fixed size request."""
    total: Counter[str] = Counter()
    for template in templates_of(document):
        replicas = template.group.get("replicas", 1)
        count = replicas if template.part == "worker" and isinstance(replicas, int) else 1
        for container in items(template.spec.get("containers")):
            sizes = {**at(container, "resources.limits"), **at(container, "resources.requests")}
            for name, size in sizes.items():
                total[name] += amount(size) * count  # type: ignore[assignment]
    return total


def _quota(document: Document, queue: Document) -> Iterator[str]:
    quota: dict[str, Decimal] = {}
    for group in items(at(queue, "spec").get("resourceGroups")):
        for flavor in items(group.get("flavors")):
            for resource in items(flavor.get("resources")):
                name = str(resource.get("name"))
                quota[name] = max(quota.get(name, Decimal(0)), amount(resource.get("nominalQuota")))
    for name, needed in needs_of(document).items():
        if name not in quota:
            yield f"spec: asks for {name}, which the ClusterQueue {name_of(queue)} does not cover"
        elif needed > quota[name]:
            yield f"spec: asks for {needed:f} {name}; ClusterQueue {name_of(queue)} has {quota[name]:f}"
