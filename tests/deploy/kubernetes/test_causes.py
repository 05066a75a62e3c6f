"""Why a job waits is told by `status` and while it is followed: events and conditions of its objects."""

import json

import pytest
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.deploy.kubernetes import api, causes
from tests.deploy.conftest import MARKS, follow
from tests.support.fake_kube import Trouble

CLUSTER = "night-7xk2p"
QUOTA = 'pods "{pod}" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=4, limited: pods=4'
SECURITY = 'pods "{pod}" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation'
ACCOUNT = 'pods "{pod}" is forbidden: error looking up service account multicsr/multicsr-head: not found'


@pytest.fixture
def submitted(submitted):
    """A job for which the operator has made a RayCluster, and nothing else yet."""
    submitted.status("night", "Initializing", rayClusterName=CLUSTER)
    submitted.put("rayclusters", {"metadata": {"name": CLUSTER}, "status": {"conditions": None}})
    return submitted


def status(*words: str) -> list[str]:
    done = CliRunner().invoke(app, ["status", "night", "--to", "k8s", *words])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def because() -> list[str]:
    first, *rest = status()
    assert first == "night: waiting (Initializing; job not submitted)"
    return [line.removeprefix("because: ") for line in rest]


def worker(kube, name, **status):
    labels = {"ray.io/cluster": CLUSTER}
    kube.put("pods", {"metadata": {"name": name, "labels": labels}, "status": {"phase": "Pending", **status}})


@pytest.mark.parametrize("why", [QUOTA, SECURITY, ACCOUNT], ids=["quota", "PodSecurity", "account"])
def test_cause_of_a_rejected_head_pod_comes_from_the_event_of_the_cluster(submitted, why):
    text = why.format(pod=f"{CLUSTER}-head-abcde")
    submitted.warn(
        "RayCluster", CLUSTER, "FailedToCreateHeadPod", f"Failed to create head Pod multicsr/x, {text}"
    )
    (line,) = because()
    assert line.startswith(f"RayCluster {CLUSTER}: FailedToCreateHeadPod: ")
    assert text in line


def test_a_condition_and_its_event_are_one_cause(submitted):
    text = QUOTA.format(pod=f"{CLUSTER}-head")
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod", "message": text}
    submitted.put("rayclusters", {"metadata": {"name": CLUSTER}, "status": {"conditions": [condition]}})
    submitted.warn(
        "RayCluster", CLUSTER, "FailedToCreateHeadPod", f"Failed to create head Pod multicsr/x, {text}"
    )
    assert len(because()) == 1


def test_attempts_that_differ_in_the_pod_s_name_are_one_cause(submitted):
    for number in range(5):
        text = QUOTA.format(pod=f"{CLUSTER}-generate-worker-ab{number}de")
        submitted.warn("RayCluster", CLUSTER, "FailedToCreateWorkerPod", text)
    assert len(because()) == 1


def test_cause_of_a_rejected_submitter_comes_from_the_event_of_the_batch_job(submitted):
    submitted.warn("Job", "night", "FailedCreate", f"Error creating: {QUOTA.format(pod='night-zzzzz')}")
    (line,) = because()
    assert line.startswith("Job night: FailedCreate: Error creating: pods")


def test_pods_that_wait_alike_are_counted(submitted):
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    for number in range(40):
        message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
        worker(submitted, f"{CLUSTER}-w-{number}", conditions=[{**condition, "message": message}])
    (line,) = because()
    assert "and 39 other pods: Unschedulable: 0/3 nodes are available" in line


def test_the_message_of_a_pod_is_repeated_as_it_is(submitted):
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    worker(submitted, f"{CLUSTER}-w-1", conditions=[{**condition, "message": "no POD fits TRIPODS"}])
    (line,) = because()
    assert "no POD fits TRIPODS" in line


@pytest.mark.parametrize("key", ["containerStatuses", "initContainerStatuses"])
def test_a_container_that_cannot_start_is_reported(submitted, key):
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nowhere/x:1"'}
    worker(submitted, f"{CLUSTER}-w-1", **{key: [{"name": "ray", "state": {"waiting": waiting}}]})
    (line,) = because()
    assert line == f'Pod {CLUSTER}-w-1: ImagePullBackOff: container ray: Back-off pulling image "nowhere/x:1"'


def test_a_container_that_ends_again_and_again_is_reported_with_its_end(submitted):
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    worker(
        submitted, f"{CLUSTER}-w-1", containerStatuses=[{"name": "ray", "state": state, "lastState": last}]
    )
    (line,) = because()
    assert line.endswith("CrashLoopBackOff: container ray: back-off 5m0s (it ended with 137, OOMKilled)")


def test_a_volume_that_cannot_be_mounted_is_reported(submitted):
    worker(submitted, f"{CLUSTER}-head")
    submitted.warn("Pod", f"{CLUSTER}-head", "FailedMount", 'configmap "night-config" not found')
    assert because() == [f'Pod {CLUSTER}-head: FailedMount: configmap "night-config" not found']


def test_kueue_s_reason_is_reported(submitted):
    submitted.warn("Workload", "rayjob-night-0ded7", "Pending", "couldn't assign flavors: insufficient quota")
    assert because() == ["Workload rayjob-night-0ded7: Pending: couldn't assign flavors: insufficient quota"]


@pytest.mark.parametrize("key", ["lastTimestamp", "eventTime"])
def test_what_was_of_an_earlier_job_of_the_name_is_not_reported(submitted, key):
    """A batch Job, its pods and a Workload are called as they were then; events last for an hour."""
    for kind, name in (("Job", "night"), ("Pod", "night-zzzzz"), ("Workload", "rayjob-night-0ded7")):
        submitted.warn(
            kind, name, "FailedCreate", "of the job before", **{key: "2026-11-24T23:59:59.000000Z"}
        )
    assert because() == []
    submitted.warn("Job", "night", "FailedCreate", "of this one", **{key: "2026-11-25T01:00:00Z"})
    assert because() == ["Job night: FailedCreate: of this one"]


def test_a_cause_among_many_warnings_of_others_is_found(submitted, monkeypatch):
    monkeypatch.setattr(api, "_EVENTS", 3)
    for number in range(10):
        submitted.warn("Pod", f"another-{number}", "BackOff", "of others")
    submitted.warn("Job", "night", "FailedCreate", "no place")
    for number in range(10):
        submitted.warn("Pod", f"zoo-{number}", "BackOff", "of others")
    assert because() == ["Job night: FailedCreate: no place"]


def test_what_is_of_others_or_no_trouble_is_not_reported(submitted):
    submitted.warn("RayCluster", "night-2-abcde", "FailedToCreateHeadPod", "of another job")
    submitted.warn("Pod", "night-2-abcde-head", "FailedScheduling", "of another job")
    submitted.warn("RayJob", "night-2", "InvalidRayJobSpec", "of another job")
    submitted.warn("Job", "night-2", "FailedCreate", "of another job")
    submitted.warn("Workload", "rayjob-night-2-0ded7", "Pending", "of another job")
    submitted.warn("Pod", f"{CLUSTER}-head", "Unhealthy", "Readiness probe failed")
    submitted.warn("RayCluster", CLUSTER, "CreatedHeadPod", "good news", type="Normal")
    starting = {"reason": "ContainerCreating"}
    worker(submitted, f"{CLUSTER}-w-1", containerStatuses=[{"name": "ray", "state": {"waiting": starting}}])
    assert because() == []


def test_running_or_ended_job_has_no_waiting_causes(submitted):
    submitted.warn("RayCluster", CLUSTER, "FailedToCreateHeadPod", "quota, an hour ago")
    for state, job in (("Running", "RUNNING"), ("Complete", "SUCCEEDED"), ("Failed", "FAILED")):
        submitted.status("night", state, job, rayClusterName=CLUSTER)
        assert len(status()) == 1


def test_json_has_the_causes(submitted):
    submitted.warn("Job", "night", "FailedCreate", "no \x1b[31m place \u202e here")
    text = "\n".join(status("--json"))
    assert text.isascii()
    found = json.loads(text)
    assert found["causes"] == ["Job night: FailedCreate: no \x1b[31m place \u202e here"]
    assert (found["name"], found["state"], found["disagreements"]) == ("night", "waiting", [])


def test_foreign_words_move_no_cursor(submitted):
    submitted.warn("Job", "night", "FailedCreate", "a\x1b]0;title\x07\r\nb\u202ec")
    (line,) = because()
    assert line.isprintable()


@pytest.mark.parametrize("path", ["/events", "/rayclusters", "/pods"])
def test_what_may_not_be_read_is_noted_and_the_rest_is_reported(submitted, path):
    submitted.warn("Job", "night", "FailedCreate", "no place")
    worker(submitted, f"{CLUSTER}-w-1", reason="x", phase="Failed", message="evicted")
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "r", "message": "of the cluster"}
    submitted.put("rayclusters", {"metadata": {"name": CLUSTER}, "status": {"conditions": [condition]}})
    submitted.troubles = [Trouble("GET", path, 403, message="no", times=99)]
    lines = because()
    assert len(lines) == 3
    assert (
        sum("note: it is not known why the job waits: kubernetes: you may not" in line for line in lines) == 1
    )


def test_job_without_an_operator_is_reported(kube):
    kube.put("rayjobs", {"metadata": {"name": "night", "labels": MARKS}})
    _, line = status()
    assert line.startswith(
        "because: RayJob night: no KubeRay operator has looked at it for 60 s; does one run"
    )


def test_causes_are_reported_once_while_a_job_is_followed(submitted):
    def reject(number):
        text = QUOTA.format(pod=f"{CLUSTER}-head-{number}")
        submitted.warn("RayCluster", CLUSTER, "FailedToCreateHeadPod", text)

    shown = follow(
        submitted,
        *[lambda number=number: reject(number) for number in range(3)],
        lambda: submitted.warn("Job", "night", "FailedCreate", "another cause"),
        lambda: None,
        lambda: submitted.status("night", "Complete", "SUCCEEDED", rayClusterName=CLUSTER),
        pause_s=0.3,
    )
    assert shown.exit_code == 0, shown.output
    printed = [line for line in shown.stdout.splitlines() if "exceeded quota" in line]
    assert len(printed) == 1
    assert printed[0].startswith(f"[waiting] RayCluster {CLUSTER}: FailedToCreateHeadPod: pods")
    assert shown.stdout.count("another cause") == 1


def test_an_operator_that_is_absent_is_reported_while_a_job_is_followed(kube, submitted, monkeypatch):
    monkeypatch.setattr(causes, "_OPERATOR_S", 0.1)
    submitted.objects["rayjobs", "night"].pop("status")
    shown = follow(
        submitted, lambda: None, lambda: submitted.status("night", "Complete", "SUCCEEDED"), pause_s=0.3
    )
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count("[waiting] RayJob night: no KubeRay operator has looked at it") == 1


def test_causes_of_an_hour_take_few_requests(submitted):
    """Of a namespace with many events only the warnings are asked for, a bounded number at a time."""
    status()
    (asked,) = [request for request in submitted.requests if "/events" in request]
    assert "fieldSelector=type%3DWarning" in asked
    assert "limit=" in asked
