"""Rules for what a RayJob runs, and in which environment."""

import re
from collections.abc import Iterator

import yaml

from multicsr.deploy.manifest_checks.documents import Document, at, items, labels_of
from multicsr.deploy.manifest_checks.model import JobSpec
from multicsr.deploy.manifest_checks.pod_rules import looks_secret
from multicsr.deploy.resources import JOB_LABEL, JOBS

_UNSAFE = re.compile(r"[^A-Za-z0-9 _./:=@%+,-]")


def run_problems(document: Document, spec: JobSpec) -> Iterator[str]:
    """Yield the problems of what a RayJob runs, paths from the document's root."""
    job = labels_of(document).get(JOB_LABEL)
    if job not in JOBS:
        yield f"metadata.labels: {JOB_LABEL} is {job}; it must be one of {', '.join(JOBS)}"
    yield from _entrypoint(document, spec.entrypoint, str(job))
    yield from _runtime_env(spec.runtime_env_yaml)
    if spec.entrypoint_num_cpus or spec.entrypoint_num_gpus or spec.entrypoint_resources:
        yield "spec.entrypointNumCpus: the job's process runs on the head, which offers nothing"
    if spec.metadata and (hidden := sorted(key for key in spec.metadata if looks_secret(key))):
        yield f"spec.metadata: {', '.join(hidden)} would be shown to everyone"


def _entrypoint(document: Document, entrypoint: str, job: str) -> Iterator[str]:
    """Yield the problems of the entrypoint.

    It passes through two shells, each of which would interpret `$`, quotes and similar characters.
    """
    if unsafe := sorted(set(_UNSAFE.findall(entrypoint))):
        yield f"spec.entrypoint: plain words only, no {' '.join(repr(sign) for sign in unsafe)}"
        return
    words = entrypoint.split()
    if words[:3] != ["python", "-m", f"ray_jobs.{job}"] or len(words) < 4:
        yield f"spec.entrypoint: must be `python -m ray_jobs.{job} CONFIG`"
    elif words[3].startswith("/") and not _is_mounted(document, words[3]):
        yield f"spec.entrypoint: the head mounts no volume that could hold {words[3]}"


def _is_mounted(document: Document, path: str) -> bool:
    pod = at(document, "spec.rayClusterSpec.headGroupSpec.template.spec")
    first = (items(pod.get("containers")) or [{}])[0]
    mounts = items(first.get("volumeMounts"))
    return any(path.startswith(f"{mount.get('mountPath')}/") for mount in mounts)


def _runtime_env(text: str | None) -> Iterator[str]:
    """Yield the problems of the runtime environment, which may hold environment variables only.

    Code is in the image: code fetched at run time is fetched again on every node, or not at all.
    """
    if text is None:
        return
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        yield "spec.runtimeEnvYAML: no YAML mapping"
        return
    if other := sorted(str(key) for key in set(found) - {"env_vars"}):
        yield f"spec.runtimeEnvYAML: {', '.join(other)} belongs into the image; only env_vars may be here"
    variables = found.get("env_vars") or {}
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        yield "spec.runtimeEnvYAML.env_vars: values must be strings"
        return
    for name in sorted(name for name in variables if looks_secret(str(name))):
        yield f"spec.runtimeEnvYAML.env_vars: {name} would be shown in the dashboard; use a service account"
