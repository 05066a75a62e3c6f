"""A RayJob and its ConfigMap, from an overlay's documents and a parcel."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy

import yaml

from multicsr.errors import ConfigError
from multicsr.kube.documents import Document
from multicsr.resources import JOB_LABEL
from multicsr.submit.jobs import ATTEMPT, CONFIG, RUN
from multicsr.submit.names import Attempt
from multicsr.submit.parcel import CONFIG_FILE, Parcel, values

Tree = dict[str, object]
MOUNT = "/etc/multicsr"
"""Where the ConfigMap lies in the pods."""
VOLUME = "config"
PART_OF = {"app.kubernetes.io/part-of": "multicsr"}
_MOST_BYTES = 900_000
"""The API server takes 1 MiB, with everything around the data."""
_KEY = re.compile(r"[-._a-zA-Z0-9]+")


def template(documents: Sequence[Document], job: str) -> Document:
    """The RayJob of a job among rendered documents.

    Raises:
        ConfigError: there is none, or several.
    """
    found = [document for document in documents if _is_template(document, job)]
    if len(found) != 1:
        raise ConfigError(
            f"--overlay: {len(found)} RayJobs with the label {JOB_LABEL}: {job}; there must be one"
        )
    return found[0]


def ray_job(template: Document, parcel: Parcel, attempt: Attempt, namespace: str, submission: str) -> Tree:
    """The RayJob to be created.

    Args:
        submission: a word that no other submission has; it tells whose object it is when an answer is lost.
    """
    made = deepcopy(dict(template))
    marks = {RUN: attempt.run, ATTEMPT: str(attempt.number), CONFIG: parcel.digest}
    old = _section(made, "metadata")
    made["metadata"] = {
        "name": attempt.name,
        "namespace": namespace,
        "labels": {**_section(old, "labels"), **PART_OF, JOB_LABEL: parcel.job, RUN: attempt.run},
        "annotations": {**_section(old, "annotations"), **marks, "multicsr.io/submission": submission},
    }
    spec = _section(made, "spec")
    spec["jobId"] = attempt.name
    spec["metadata"] = {**_section(spec, "metadata"), JOB_LABEL: parcel.job, **marks}
    volumes = [volume for volume in _volumes(spec) if volume.get("name") == VOLUME]
    if not volumes:
        raise ConfigError(f"--overlay: the RayJob mounts no volume named {VOLUME} with the configuration")
    for volume in volumes:
        # Not optional, as in the template: the pods wait for it.
        volume["configMap"] = {"name": config_name(attempt.name), "optional": False}
    return made


def config_map(parcel: Parcel, name: str, namespace: str, owner_uid: str | None = None) -> Tree:
    """What a job reads.

    Args:
        name: of the RayJob.
        owner_uid: of the RayJob, with which the ConfigMap then goes.

    Raises:
        ConfigError: it would be too large, or a file's name cannot be used.
    """
    files = {CONFIG_FILE: parcel.text(MOUNT).encode("utf-8"), **parcel.files}
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
        "labels": {**PART_OF, JOB_LABEL: parcel.job},
        "annotations": {CONFIG: parcel.digest},
    }
    if owner_uid:
        metadata["ownerReferences"] = [owner]
    made: Tree = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    return made | {"immutable": True, "data": text} | ({"binaryData": binary} if binary else {})


def config_name(job_name: str) -> str:
    """The name of a RayJob's ConfigMap."""
    return f"{job_name}-config"


def require_buckets(parcel: Parcel) -> None:
    """What pods write must outlive them.

    Raises:
        ConfigError: the store or an input is a directory.
    """
    for setting in ("store", "input.paths"):
        for place in values(parcel.config, setting):
            if not place.startswith("s3://"):
                raise ConfigError(
                    f"{setting}: {place} would be in a pod, and go with it; give s3://bucket/prefix"
                )


def as_yaml(documents: Sequence[Document]) -> str:
    """As `kubectl apply -f -` takes it."""
    return yaml.safe_dump_all(map(dict, documents), sort_keys=False, allow_unicode=True)


def _is_template(document: Document, job: str) -> bool:
    labels = _section(_section(dict(document), "metadata"), "labels")
    return document.get("kind") == "RayJob" and labels.get(JOB_LABEL) == job


def _section(tree: Tree, key: str) -> Tree:
    """A part of a document, to be changed in place; it need not be there."""
    found = tree.get(key)
    return found if isinstance(found, dict) else {}


def _volumes(node: object) -> Iterator[Tree]:
    """The volumes of every pod template in a document."""
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
    """Texts as they are, other files in base64."""
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
