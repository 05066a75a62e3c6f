"""Every overlay renders, and nothing that comes out of it would be refused or wait for ever."""

import re
from importlib.metadata import requires, version

import kubernetes_validate
import pytest
from packaging.requirements import Requirement

from multicsr.config_file import load_config
from multicsr.deploy.manifest_checks.check import check
from multicsr.deploy.manifest_checks.documents import containers_of, templates_of
from multicsr.deploy.manifest_checks.fit import preflight
from multicsr.deploy.manifest_checks.node_groups import groups
from multicsr.deploy.manifest_checks.reference_rules import CONFIG_MAP, PLATFORM
from multicsr.deploy.resources import JOB_LABEL, JOBS, requests_of
from multicsr.errors import ConfigError
from tests.support.manifests import (
    K8S,
    OVERLAYS,
    cluster_of,
    nightly_job,
    pick,
    platform,
    rendered,
    whole,
    written,
)
from tests.support.paths import ROOT
from tests.support.schemas import rejections

KUBERNETES = "1.34"
OURS = ("ray.io/", "kueue.x-k8s.io/", "monitoring.coreos.com/")
GPU_CONFIG = K8S / "overlays/nightly/config.yaml"
SMALL_CONFIG = ROOT / "configs/nightly.yaml"


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_has_nothing_to_be_found(name):
    assert check(whole(name)) == []


def test_what_needs_no_rendering_has_nothing_to_be_found():
    assert check([*platform(), *nightly_job()]) == []


@pytest.mark.shared
@pytest.mark.parametrize("name", OVERLAYS)
def test_the_published_schemas_take_every_ray_document(name, shared_data):
    documents = [each for each in whole(name) if each["apiVersion"] == "ray.io/v1"]
    assert documents
    assert [rejection for document in documents for rejection in rejections(shared_data, document)] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_kubernetes_schemas_take_every_core_object_and_pod(name):
    pods = 0
    for document in whole(name):
        if not document["apiVersion"].startswith(OURS):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        for template in templates_of(document):
            pod = {"metadata": dict(template.metadata), "spec": dict(template.spec)}
            wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "template": pod}
            kubernetes_validate.validate(wrapped, KUBERNETES, strict=True)
            pods += 1
    assert pods >= 4


@pytest.mark.parametrize("name", [name for name in OVERLAYS if name != "nightly"])
def test_an_overlay_has_every_job_on_the_cluster_that_is_written_once(name):
    documents = rendered(name)
    jobs = {each["metadata"]["labels"][JOB_LABEL]: each for each in documents if each["kind"] == "RayJob"}
    assert sorted(jobs) == sorted(JOBS)
    standing = cluster_of(pick(documents, "RayCluster", "multicsr"))
    whole_groups = {group["groupName"]: group for group in standing["workerGroupSpecs"]}
    for document in jobs.values():
        cluster = cluster_of(document)
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            (config,) = (volume for volume in pod["volumes"] if volume["name"] == "config")
            assert config["configMap"]["name"] == CONFIG_MAP
            mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
            assert mounts["config"] == "/etc/multicsr"
        for group in cluster.pop("workerGroupSpecs"):
            assert group == whole_groups[group["groupName"]]
        assert cluster == {key: value for key, value in standing.items() if key != "workerGroupSpecs"}


def test_the_nightly_job_is_the_rendered_one():
    """If it is not: kubectl kustomize k8s/overlays/nightly/refresh > k8s/overlays/nightly/jobs.yaml"""
    assert written("overlays/nightly/jobs.yaml") == rendered("nightly/refresh")


def test_what_jobs_take_for_granted_is_what_the_platform_makes():
    used = {"Namespace", "ServiceAccount", "PriorityClass", "Role"}
    made = {(each["kind"], each["metadata"]["name"]) for each in platform() if each["kind"] in used}
    assert made == PLATFORM


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("name", ["dev", "autoscale", "kueue", "gpu-a100"])
def test_every_stage_fits_a_group(name, job):
    config = load_config(SMALL_CONFIG if name == "dev" else GPU_CONFIG)
    document = pick(rendered(name), "RayJob", job)
    preflight(requests_of(config, job), groups(cluster_of(document)))


def test_a_stage_without_a_group_is_rejected():
    document = pick(rendered("dev"), "RayJob", "generate")
    with pytest.raises(ConfigError, match="generate: an actor asks for 0 CPU and 1 GPU"):
        preflight(requests_of(load_config(GPU_CONFIG), "generate"), groups(cluster_of(document)))


@pytest.mark.parametrize("name", OVERLAYS)
def test_image_and_cluster_have_the_installed_ray(name):
    ray = version("ray")
    for document in whole(name):
        if document["apiVersion"] == "ray.io/v1":
            assert cluster_of(document)["rayVersion"] == ray
        for template in templates_of(document):
            for _, container in containers_of(template):
                assert re.search(rf"-ray{re.escape(ray)}-(cpu|gpu)$", container["image"])


def test_the_locked_ray_is_the_installed_one():
    wanted = [Requirement(line) for line in requires("multicsr") or [] if line.startswith("ray")]
    assert wanted
    assert all(version("ray") in requirement.specifier for requirement in wanted)
    locks = sorted((K8S.parent / "cluster").glob("requirements-*.lock"))
    if not locks:
        pytest.skip("no lock files beside the Dockerfile")
    locked = [re.findall(r"^ray(?:\[[a-z,]+\])?==(\S+)", lock.read_text(), re.MULTILINE) for lock in locks]
    assert {found for each in locked for found in each} == {version("ray")}


def test_spot_nodes_are_tolerated_by_writers_alone():
    cluster = cluster_of(pick(rendered("autoscale"), "RayJob", "refresh"))
    spotty = {
        group["groupName"]
        for group in cluster["workerGroupSpecs"]
        if "spot" in str(group["template"]["spec"].get("tolerations"))
    }
    assert spotty == {"gpu-generate"}
