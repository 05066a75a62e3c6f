"""The manifests for tests: rendered where kubectl is; those that need no rendering, everywhere."""

import copy
import functools
import shutil

import pytest

from multicsr.deploy.manifest_checks.render import render
from tests.support.paths import ROOT

K8S = ROOT / "k8s"
OVERLAYS = ("dev", "autoscale", "kueue", "gpu-a100", "nightly")


@functools.cache
def _rendered(name: str):
    return render(K8S / name)


def rendered(name: str):
    """The documents of `base` or of an overlay; the test is skipped where kubectl is missing."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which renders the overlays, is not installed")
    return copy.deepcopy(_rendered(name if name == "base" else f"overlays/{name}"))


def whole(name: str):
    """An overlay with all that is in its namespace: the platform, and for the night the job that it makes."""
    documents = [*rendered("base"), *rendered(name)]
    return [*documents, *written("overlays/nightly/jobs.yaml")] if name == "nightly" else documents


@functools.cache
def _written(file: str):
    return render(K8S / file)


def written(*files: str):
    """Documents of files that are valid as they stand."""
    return [document for file in files for document in copy.deepcopy(_written(file))]


def platform():
    """k8s/base, without kustomize's label and namespace."""
    names = ("namespace", "accounts", "roles", "network", "priority", "head-budget")
    return written(*(f"base/{name}.yaml" for name in names))


def nightly_job():
    """The nightly schedule and its job, with the image that kustomize would put in."""
    names = ("jobs", "cronjob", "access")
    documents = written(*(f"overlays/nightly/{name}.yaml" for name in names))
    pod = pick(documents, "CronJob", "multicsr-nightly")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    job = cluster_of(pick(documents, "RayJob", "refresh"))
    pod["containers"][0]["image"] = job["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "multicsr-nightly"}}
    return [*documents, config]


def pick(documents, kind: str, name: str):
    """The one document of a kind and a name."""
    found = [each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} documents are {kind} {name}"
    return found[0]


def cluster_of(document):
    """The Ray cluster that a RayCluster or a RayJob describes."""
    return document["spec"] if document["kind"] == "RayCluster" else document["spec"]["rayClusterSpec"]
