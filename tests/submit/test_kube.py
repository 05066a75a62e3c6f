"""Submitting to Kubernetes, against a fake API server: twice is once, and what servers answer."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from multicsr.cli import app
from multicsr.config_file import load_config
from multicsr.submit import places, retry
from tests.submit.conftest import RENDERED
from tests.submit.fake_kube import Trouble
from tests.submit.fake_server import manifest_problems

K8S = ("--to", "k8s")


def multicsr(*words: str):
    return CliRunner().invoke(app, [*words])


@pytest.fixture
def submit(config, monkeypatch):
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.01)

    def call(*words: str):
        return multicsr("submit", "refresh", str(config), *K8S, "--overlay", str(RENDERED), *words)

    return call


def created(kube) -> list[str]:
    """Kinds of the objects that were really made, in order."""
    posts = [request for request in kube.requests if request.startswith("POST") and "dryRun" not in request]
    return [request.rpartition("/")[2] for request in posts]


def jobs(kube) -> list[str]:
    return [name for kind, name in kube.objects if kind == "rayjobs"]


def test_a_job_and_its_configuration_are_made(kube, submit):
    done = submit("--name", "night")
    assert done.exit_code == 0, done.output
    assert done.stdout == "night is submitted\n"
    job, configuration = kube.objects["rayjobs", "night"], kube.objects["configmaps", "night-config"]
    assert created(kube) == ["rayjobs", "configmaps"]
    (owner,) = configuration["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("RayJob", "night", job["metadata"]["uid"])
    assert next(request for request in kube.requests if "dryRun=All" in request).startswith("POST")


def test_the_same_again_is_not_run_twice(kube, submit):
    first = submit()
    for state in ("", "Initializing", "Running", "Suspended", "Retrying"):
        kube.status(jobs(kube)[0], state)
        again = submit()
        assert again.exit_code == 0
        assert "is there already: nothing is submitted" in again.stdout
    kube.status(jobs(kube)[0], "Complete", "SUCCEEDED")
    assert "has succeeded: nothing is submitted" in submit().stdout
    assert created(kube) == ["rayjobs", "configmaps"]
    assert first.stdout == f"{jobs(kube)[0]} is submitted\n"


def test_another_configuration_is_another_job_but_not_under_the_same_name(kube, submit):
    assert submit().exit_code == submit("--set", "seed=7").exit_code == 0
    assert len(jobs(kube)) == 2
    assert submit("--name", "night").exit_code == 0
    refused = submit("--name", "night", "--set", "seed=7")
    assert refused.exit_code == 1
    assert "night exists with another configuration (waiting); give another --name" in refused.stderr


def test_a_second_run_on_the_same_day_collides(kube, submit):
    words = ("--daily", "--time-zone", "Europe/Berlin")
    assert submit(*words).exit_code == submit(*words).exit_code == 0
    assert "another configuration" in submit(*words, "--set", "seed=7").stderr
    assert len(jobs(kube)) == 1


def test_what_failed_or_was_stopped_goes_on_as_the_next_attempt(kube, submit):
    submit("--name", "night")
    kube.status("night", "Failed", "FAILED", reason="AppFailed", message="Job entrypoint command\nfailed")
    second = submit("--name", "night")
    assert "night: failed (Failed; job FAILED; AppFailed Job entrypoint command failed)" in second.stdout
    assert "the work goes on as night-2\nnight-2 is submitted" in second.stdout
    kube.status("night-2", "Complete", "STOPPED")
    submit("--name", "night")
    kube.status("night-3", "Running", "RUNNING")
    assert "night-3 is there already" in submit("--name", "night").stdout
    assert jobs(kube) == ["night", "night-2", "night-3"]


@pytest.mark.parametrize("status", [500, 503, 504])
def test_a_lost_answer_does_not_make_a_second_job(kube, submit, status):
    kube.troubles = [
        Trouble("POST", r"/rayjobs$", status, done=True),
        Trouble("POST", r"/configmaps$", status, done=True),
    ]
    assert submit("--name", "night").stdout == "night is submitted\n"
    assert jobs(kube) == ["night"]
    assert ("configmaps", "night-config") in kube.objects


def test_a_server_that_asks_to_wait_is_waited_for(kube, submit):
    kube.troubles = [Trouble("POST", r"/rayjobs$", 429, {"Retry-After": "1"}, times=2)]
    start = time.monotonic()
    assert submit().exit_code == 0
    assert time.monotonic() - start >= 2
    assert created(kube) == ["rayjobs"] * 3 + ["configmaps"]


def test_a_server_that_stays_down_is_given_up(kube, submit, monkeypatch):
    monkeypatch.setattr(retry, "TRIES", 3)
    kube.troubles = [Trouble("GET", "/rayjobs", 503, message="etcd has no leader", times=99)]
    failed = submit()
    assert failed.exit_code == 1
    assert failed.stderr.endswith("says: etcd has no leader\n")
    assert len(kube.requests) == 3


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/rayjobs", 403, "you may not list rayjobs.ray.io in namespace multicsr; have a Role"),
        ("POST", "/rayjobs", 403, "you may not create rayjobs.ray.io in namespace multicsr; have a Role"),
        ("POST", "/configmaps", 403, "kubectl auth can-i create configmaps -n multicsr [no]"),
        ("GET", "/rayjobs", 401, "does not accept your credentials; log in again"),
        ("POST", "/rayjobs", 422, "kubernetes refuses to create rayjobs.ray.io in namespace multicsr: no"),
        ("GET", "/rayjobs", 404, "RayJobs with the KubeRay operator"),
    ],
)
def test_what_a_server_refuses_is_one_line_and_nothing_is_made(kube, submit, method, path, status, message):
    kube.troubles = [Trouble(method, path, status, message="no", times=99)]
    failed = submit()
    assert failed.exit_code == 1, failed.output
    assert failed.stderr.startswith("error: kubernetes")
    assert failed.stderr.count("\n") == 1
    assert message in failed.stderr
    assert kube.objects == {}


def test_the_fake_refuses_what_a_server_would(kube, submit):
    submit("--name", "night")
    made = kube.objects["rayjobs", "night"]
    assert manifest_problems({**made, "status": {}}, "rayjobs") == []
    for key, value in (("ttlSecondsAfterFinish", 1), ("submissionMode", "K8sJobmode"), ("backoffLimit", "x")):
        broken = {**made, "spec": {**made["spec"], key: value}}
        assert any(key in problem for problem in manifest_problems(broken, "rayjobs")), key


def test_a_name_that_another_object_has_is_refused(kube, submit):
    kube.put("rayjobs", {"metadata": {"name": "night"}})
    refused = submit("--name", "night")
    assert refused.exit_code == 1
    assert "night exists and is not this job; give another --name" in refused.stderr
    assert created(kube) == []


def test_racing_submitters_make_one_job(kube, config):
    order, said = places.order("refresh", load_config(config), "night"), []

    def send(_):
        return places.send(order, places.Where("k8s"), RENDERED, said.append)[1]

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(send, range(4))] == ["night"] * 4
    assert said.count("night is submitted") == 1
    assert jobs(kube) == ["night"]
    assert [kind for kind, _ in kube.objects].count("configmaps") == 1


def test_a_submitter_that_died_half_way_is_completed_by_the_next(kube, submit):
    submit("--name", "night")
    kube.remove("configmaps", "night-config")
    assert "is there already" in submit("--name", "night").stdout
    assert ("configmaps", "night-config") in kube.objects


def test_stop_deletes_and_the_same_name_is_free_again(kube, submit):
    submit("--name", "night")
    stopped = multicsr("stop", "night", *K8S)
    assert stopped.exit_code == 0, stopped.output
    assert "night is deleted, with its cluster; the store keeps what was committed" in stopped.stdout
    assert kube.objects == {}
    assert submit("--name", "night").stdout == "night is submitted\n"


def test_a_job_that_is_being_deleted_is_not_taken_for_one_that_runs(kube, submit):
    submit("--name", "night")
    kube.objects["rayjobs", "night"]["metadata"]["deletionTimestamp"] = "2026-11-25T00:00:00Z"
    refused = submit("--name", "night")
    assert refused.stderr == "error: night is being deleted; submit it again when it is gone\n"


def test_the_configuration_of_a_deleted_job_is_waited_out(kube, submit):
    """The garbage collector takes what a deleted job owned a while later."""
    stale = {"metadata": {"name": "night-config", "ownerReferences": [{"uid": "of-before"}]}}
    kube.put("configmaps", stale)
    threading.Timer(1.5, lambda: kube.remove("configmaps", "night-config")).start()
    assert submit("--name", "night").exit_code == 0
    owners = kube.objects["configmaps", "night-config"]["metadata"]["ownerReferences"]
    assert owners[0]["uid"] == kube.objects["rayjobs", "night"]["metadata"]["uid"]


def test_jobs_and_status_tell_what_there_is(kube, submit):
    submit("--name", "night")
    kube.put("rayjobs", {"metadata": {"name": "of-others"}})
    kube.status("night", "Running", "RUNNING")
    listed = multicsr("jobs", *K8S)
    assert "night" in listed.stdout
    assert "running" in listed.stdout
    assert "of-others" not in listed.stdout
    assert multicsr("status", "night", *K8S).stdout == "night: running (Running; job RUNNING)\n"
    absent = multicsr("status", "absent", *K8S)
    assert (absent.exit_code, absent.stderr) == (1, "error: no job absent; see `multicsr jobs`\n")


def test_logs_are_those_of_the_newest_pod(kube, submit):
    submit("--name", "night")
    assert "no pod has submitted it yet" in multicsr("logs", "night", *K8S).stderr
    kube.pod("night", "night-a", "Failed", "2026-11-25T00:00:01Z old")
    kube.pod("night", "night-b", "Running", "2026-11-25T00:00:02Z one", "2026-11-25T00:00:03Z two words")
    assert multicsr("logs", "night", *K8S).stdout == "one\ntwo words\n"


def test_without_a_cluster_there_is_one_line(submit, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    failed = submit()
    assert (failed.exit_code, failed.stderr.count("\n")) == (2, 1)
    assert "no cluster: set KUBECONFIG, or run in a pod with a service account" in failed.stderr
