"""Documents of a RayJob and its ConfigMap, made from an overlay's documents and a bundle."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy

import yaml

from multicsr.deploy.manifest_checks.documents import Document
from multicsr.deploy.resources import JOB_LABEL
from multicsr.deploy.submit.bundle import CONFIG_FILE, Bundle, values
from multicsr.deploy.submit.job import ATTEMPT, CONFIG, RUN
from multicsr.deploy.submit.names import Attempt
from multicsr.errors import ConfigError

Tree = dict[str, object]
MOUNT = "/etc/multicsr"
"""Directory in the pods at which the ConfigMap is mounted."""
VOLUME = "config"
"""Name of the volume that mounts the ConfigMap."""
PART_OF = {"app.kubernetes.io/part-of": "multicsr"}
"""Label of all objects that multicsr creates."""
_MOST_BYTES = 900_000
"""Largest size of the data. The API server accepts 1 MiB, which includes everything around the data."""
_KEY = re.compile(r"[-._a-zA-Z0-9]+")


def template(documents: Sequence[Document], job: str) -> Document:
    """Return the RayJob for a job from the rendered documents of an overlay.

    Args:
        job: kind of the job, one of JOBS.

    Raises:
        ConfigError: the overlay has no such RayJob, or several.
    """
    found = [document for document in documents if _is_template(document, job)]
    if len(found) != 1:
        raise ConfigError(
            f"--overlay: {len(found)} RayJobs with the label {JOB_LABEL}: {job}; there must be one"
        )
    return found[0]


def ray_job(template: Document, bundle: Bundle, attempt: Attempt, namespace: str, submission: str) -> Tree:
    """Return the RayJob to be created.

    Args:
        template: the RayJob of the overlay; it is not changed.
        submission: identifier that no other submission has. If the answer to a create request is lost, it
            shows which submission created the object.

    Raises:
        ConfigError: the template has no volume for the configuration.
    """
    made = deepcopy(dict(template))
    marks = {RUN: attempt.run, ATTEMPT: str(attempt.number), CONFIG: bundle.digest}
    old = _section(made, "metadata")
    made["metadata"] = {
        "name": attempt.name,
        "namespace": namespace,
        "labels": {**_section(old, "labels"), **PART_OF, JOB_LABEL: bundle.job, RUN: attempt.run},
        "annotations": {**_section(old, "annotations"), **marks, "multicsr.io/submission": submission},
    }
    spec = _section(made, "spec")
    spec["jobId"] = attempt.name
    spec["metadata"] = {**_section(spec, "metadata"), JOB_LABEL: bundle.job, **marks}
    volumes = [volume for volume in _volumes(spec) if volume.get("name") == VOLUME]
    if not volumes:
        raise ConfigError(f"--overlay: the RayJob mounts no volume named {VOLUME} with the configuration")
    for volume in volumes:
        # Unlike in the template it is not optional, so that the pods wait for it.
        volume["configMap"] = {"name": config_name(attempt.name), "optional": False}
    return made


def config_map(bundle: Bundle, name: str, namespace: str, owner_uid: str | None = None) -> Tree:
    """Return the ConfigMap with the configuration and the data files of a job.

    Args:
        name: name of the RayJob.
        owner_uid: uid of the RayJob; if given, Kubernetes deletes the ConfigMap together with the RayJob.

    Raises:
        ConfigError: the ConfigMap would be too large, or the name of a file is not valid in it.
    """
    files = {CONFIG_FILE: bundle.text(MOUNT).encode("utf-8"), **bundle.files}
    text, binary = _as_data(files)
    size = sum(map(len, files)) + sum(len(data.encode()) for data in [*text.values(), *binary.values()])
    if size > _MOST_BYTES:
        largest = max(files, key=lambda name: len(files[name]))
        raise ConfigError(
            f"{size / 1000:,.0f} kB of data files do not fit into a ConfigMap, which takes "
            f"{_MOST_BYTES // 1000} (the largest is {largest}): put them into the image or on a volume, and "
            "name absolute paths"
        )
    owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": name, "uid": owner_uid}
    metadata: Tree = {
        "name": config_name(name),
        "namespace": namespace,
        "labels": {**PART_OF, JOB_LABEL: bundle.job},
        "annotations": {CONFIG: bundle.digest},
    }
    if owner_uid:
        metadata["ownerReferences"] = [owner]
    made: Tree = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    return made | {"immutable": True, "data": text} | ({"binaryData": binary} if binary else {})


def config_name(job_name: str) -> str:
    """Return the name of the ConfigMap of a RayJob."""
    return f"{job_name}-config"


def require_buckets(bundle: Bundle) -> None:
    """Raise if the store or an input is not in a bucket: files in a pod are lost with the pod.

    Raises:
        ConfigError: the store or an input does not begin with `s3://`.
    """
    for setting in ("store", "input.paths"):
        for place in values(bundle.config, setting):
            if not place.startswith("s3://"):
                raise ConfigError(
                    f"{setting}: {place} would be in a pod, and go with it; give s3://bucket/prefix"
                )


def as_yaml(documents: Sequence[Document]) -> str:
    """Return the documents as YAML that `kubectl apply -f -` accepts."""
    return yaml.safe_dump_all(map(dict, documents), sort_keys=False, allow_unicode=True)


def _is_template(document: Document, job: str) -> bool:
    labels = _section(_section(dict(document), "metadata"), "labels")
    return document.get("kind") == "RayJob" and labels.get(JOB_LABEL) == job


def _section(tree: Tree, key: str) -> Tree:
    """Return a section of a document.

    Returns:
        The section itself, which can be changed in place; a new empty dict if the document does not have it.
    """
    found = tree.get(key)
    return found if isinstance(found, dict) else {}


def _volumes(node: object) -> Iterator[Tree]:
    """Yield the volumes of every pod template in a document."""
    if isinstance(node, list):
        for child in node:
            yield from _volumes(child)
    if isinstance(node, dict):
        volumes = node.get("volumes")
        if isinstance(volumes, list):
            yield from (volume for volume in volumes if isinstance(volume, dict))
        for key, child in node.items():
            if key != "volumes":
                yield from _volumes(child)


def _as_data(files: Mapping[str, bytes]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the files that are UTF-8 text, and the other files in base64.

    Raises:
        ConfigError: the name of a file is not valid in a ConfigMap.
    """
    text, binary = {}, {}
    for name, data in files.items():
        if not _KEY.fullmatch(name):
            raise ConfigError(
                f"{name}: a ConfigMap takes only letters, digits, - _ and . in names; rename it"
            )
        try:
            text[name] = data.decode("utf-8")
        except UnicodeDecodeError:
            binary[name] = base64.b64encode(data).decode()
    return text, binary
