"""What a cluster offers, read by Ray's own code, and what of a job does not fit."""

from dataclasses import replace

import pytest

from multicsr.deploy.manifest_checks.fit import preflight
from multicsr.deploy.manifest_checks.node_groups import HEAD, NodeGroup, groups
from multicsr.deploy.resources import ResourceRequest
from multicsr.errors import ConfigError
from tests.support.manifests import cluster_of, written

GIB = 2**30
ACTOR = ResourceRequest("generate", "an actor", 4, 0, 1, {"multicsr.io/role": "generate"})
WORKER = ResourceRequest("train", "a worker", 2, 0, 1, {"multicsr.io/role": "train"})
TASK = ResourceRequest("ingest", "a task", 1, 1, 0, {})


@pytest.fixture
def cluster():
    (document,) = written("jobs/cluster.yaml")
    return cluster_of(document)


def test_groups_offer_what_ray_reads(cluster):
    assert groups(cluster) == [
        NodeGroup(HEAD, 0, 0, 16 * GIB, {}, 1, 1),
        NodeGroup("cpu", 8, 0, 32 * GIB, {"multicsr.io/role": "cpu"}, 0, 8),
        NodeGroup("gpu-generate", 0, 1, 32 * GIB, {"multicsr.io/role": "generate"}, 0, 8),
        NodeGroup("gpu-train", 0, 1, 64 * GIB, {"multicsr.io/role": "train"}, 0, 4),
    ]


def test_a_group_that_nobody_scales_has_its_replicas(cluster):
    cluster["enableInTreeAutoscaling"] = False
    cluster["workerGroupSpecs"][0] |= {"replicas": 3, "numOfHosts": 2}
    assert [(group.min, group.max) for group in groups(cluster)][:2] == [(1, 1), (6, 6)]


def test_a_group_that_ray_cannot_read_is_rejected(cluster):
    del cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]
    with pytest.raises(ConfigError, match=r"Ray cannot read the cluster's groups: ValueError: .*group cpu"):
        groups(cluster)


def test_what_fits_passes(cluster):
    preflight([TASK, ACTOR, WORKER], groups(cluster))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            replace(ACTOR, cpus=1),
            "generate: an actor asks for 1 CPU and 1 GPU on multicsr.io/role=generate; no group fits, "
            "gpu-generate comes nearest: it offers 0 CPU a node; change the section generate, or the group",
        ),
        (
            replace(ACTOR, gpus=2),
            "no group fits, gpu-generate comes nearest: it offers 1 GPU a node",
        ),
        (
            replace(ACTOR, labels={"multicsr.io/role": "generation"}),
            "no group fits, gpu-generate comes nearest: its multicsr.io/role is generate",
        ),
        (replace(TASK, cpus=9), "ingest: a task asks for 9 CPU and 0 GPU; no group fits, cpu comes nearest"),
        (replace(TASK, labels={"zone": "a"}), "cpu comes nearest: it has no label zone"),
        (
            replace(WORKER, count=5),
            "train: a worker asks for 0 CPU and 1 GPU on multicsr.io/role=train, 5 at a time; "
            "gpu-train at full size holds 4",
        ),
    ],
)
def test_request_without_a_fitting_group_names_the_nearest_one(cluster, request_, message):
    with pytest.raises(ConfigError) as rejection:
        preflight([TASK, request_], groups(cluster))
    assert message in str(rejection.value)


def test_shares_of_a_gpu_are_counted_per_node(cluster):
    preflight([replace(ACTOR, gpus=1 / 3, count=24)], groups(cluster))
    with pytest.raises(ConfigError, match="25 at a time; gpu-generate at full size holds 24"):
        preflight([replace(ACTOR, gpus=1 / 3, count=25)], groups(cluster))


def test_a_group_of_no_nodes_takes_nothing(cluster):
    cluster["workerGroupSpecs"][1]["maxReplicas"] = 0
    with pytest.raises(ConfigError, match="gpu-generate comes nearest: it has no node"):
        preflight([ACTOR], groups(cluster))


def test_the_head_is_never_the_nearest(cluster):
    cluster["workerGroupSpecs"] = cluster["workerGroupSpecs"][:1]
    with pytest.raises(
        ConfigError, match=r"cpu comes nearest: its multicsr\.io/role is cpu, it offers 0 GPU"
    ):
        preflight([ACTOR], groups(cluster))
