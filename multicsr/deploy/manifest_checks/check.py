"""All checks of a manifest. It may be sent if there is no finding."""

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from multicsr.deploy.manifest_checks.core_rules import core_problems, kind_problems
from multicsr.deploy.manifest_checks.deletion_rules import deletion_problems
from multicsr.deploy.manifest_checks.documents import Document, name_of, title_of
from multicsr.deploy.manifest_checks.job_rules import run_problems
from multicsr.deploy.manifest_checks.model import ClusterSpec, JobSpec
from multicsr.deploy.manifest_checks.operator_rules import cluster_problems, job_problems, name_problems
from multicsr.deploy.manifest_checks.pod_rules import pod_problems
from multicsr.deploy.manifest_checks.project_rules import project_problems
from multicsr.deploy.manifest_checks.queue_rules import queue_problems
from multicsr.deploy.manifest_checks.reference_rules import reference_problems


def check(documents: Sequence[Document]) -> list[str]:
    """Return the findings, one line each; an empty list if the documents may be sent.

    Args:
        documents: documents that go to one namespace, in addition to what k8s/base makes.
    """
    found = [(document, problem) for document in documents for problem in _alone(document)]
    found += reference_problems(documents)
    found += queue_problems(documents)
    return list(dict.fromkeys(f"{title_of(document)}: {problem}" for document, problem in found))


def _alone(document: Document) -> Iterator[str]:
    if unknown := list(kind_problems(document)):
        yield from unknown
        return
    yield from core_problems(document)
    yield from pod_problems(document)
    if document.get("kind") == "RayJob":
        yield from _ray_job(document)
    elif document.get("kind") == "RayCluster":
        yield from _ray_cluster(document)
    yield from project_problems(document)


def _ray_job(document: Document) -> Iterator[str]:
    yield from name_problems("RayJob", name_of(document))
    try:
        spec = JobSpec.model_validate(document.get("spec"))
    except ValidationError as error:
        yield from _model_problems(error)
        return
    yield from (f"spec.{problem}" for problem in (*job_problems(spec), *deletion_problems(spec)))
    yield from run_problems(document, spec)
    if spec.ray_cluster_spec:
        yield from (f"spec.rayClusterSpec.{problem}" for problem in cluster_problems(spec.ray_cluster_spec))


def _ray_cluster(document: Document) -> Iterator[str]:
    yield from name_problems("RayCluster", name_of(document))
    try:
        spec = ClusterSpec.model_validate(document.get("spec"))
    except ValidationError as error:
        yield from _model_problems(error)
        return
    yield from (f"spec.{problem}" for problem in cluster_problems(spec))


def _model_problems(error: ValidationError) -> Iterator[str]:
    words = {"extra_forbidden": "unknown key", "missing": "missing"}
    for item in error.errors():
        path = ".".join(str(part) for part in ("spec", *item["loc"]))
        yield f"{path}: {words.get(item['type'], item['msg'])}"
