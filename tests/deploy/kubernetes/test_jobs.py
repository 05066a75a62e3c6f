"""Submitting to Kubernetes, against a fake API server: twice is once, and what servers answer."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.config_file import load_config
from multicsr.deploy import targets
from multicsr.deploy.kubernetes import api
from multicsr.deploy.kubernetes import jobs as kube_module
from multicsr.deploy.submit import retry
from tests.deploy.conftest import RENDERED
from tests.support.fake_kube import Trouble
from tests.support.fake_server import SUBMITTER, manifest_problems

K8S = ("--to", "k8s")
NO_JOB = "error: no job absent; see `multicsr jobs`\n"


def multicsr(*words: str):
    return CliRunner().invoke(app, [*words])


@pytest.fixture
def submit(config, monkeypatch):
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(api, "_DENIED_POLL_S", 0.02)

    def call(*words: str):
        return multicsr("submit", "refresh", str(config), *K8S, "--overlay", str(RENDERED), *words)

    return call


def created(kube) -> list[str]:
    """Kinds of the objects that were really made, in order."""
    posts = [request for request in kube.requests if request.startswith("POST") and "dryRun" not in request]
    return [request.rpartition("/")[2] for request in posts]


def made(kube) -> list[tuple[str, str]]:
    """Everything that was not there before: the accounts come with k8s/base."""
    return [key for key in kube.objects if key[0] != "serviceaccounts"]


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
    rejected = submit("--name", "night", "--set", "seed=7")
    assert rejected.exit_code == 1
    assert "night exists with another configuration (waiting); give another --name" in rejected.stderr


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


MODIFIED = (
    'Operation cannot be fulfilled on resourcequotas "jobs": the object has been modified; please apply your '
    "changes to the latest version and try again"
)


@pytest.mark.parametrize("path", ["/rayjobs", "/configmaps"])
def test_a_conflict_on_the_quota_is_no_taken_name_and_passes(kube, submit, path):
    kube.troubles = [Trouble("POST", path, 409, message=MODIFIED, reason="Conflict", times=5)]
    assert submit("--name", "night").stdout == "night is submitted\n"
    assert {kind for kind, _ in made(kube)} == {"rayjobs", "configmaps"}


@pytest.mark.parametrize("reason", ["Conflict", "AlreadyExists", ""])
@pytest.mark.parametrize("path", ["/rayjobs", "/configmaps$"])
def test_a_webhook_that_answers_with_a_conflict_is_reported(kube, submit, path, reason):
    message = 'admission webhook "gate.example" denied the request: a freeze'
    kube.troubles = [Trouble("POST", path, 409, message=message, reason=reason, times=99)]
    failed = submit("--name", "night")
    assert (failed.exit_code, failed.stderr.count("\n")) == (1, 1)
    assert message in failed.stderr


def test_a_server_that_stays_down_is_given_up(kube, submit, monkeypatch):
    monkeypatch.setattr(retry, "TRIES", 3)
    kube.troubles = [Trouble("GET", "/rayjobs", 503, message="etcd has no leader", times=99)]
    failed = submit()
    assert failed.exit_code == 1
    assert failed.stderr.endswith("answered: etcd has no leader\n")
    assert len(kube.requests) == 3


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/rayjobs", 403, "you may not list rayjobs.ray.io in namespace multicsr; have a Role"),
        ("POST", "/rayjobs", 403, "you may not create rayjobs.ray.io in namespace multicsr; have a Role"),
        ("POST", "/configmaps", 403, "kubectl auth can-i create configmaps -n multicsr [no]"),
        ("GET", "/rayjobs", 401, "does not accept your credentials; log in again"),
        (
            "POST",
            "/rayjobs",
            422,
            "kubernetes rejects the request to create rayjobs.ray.io in namespace multicsr: no",
        ),
        ("GET", "/rayjobs", 404, "RayJobs with the KubeRay operator"),
    ],
)
def test_what_a_server_rejects_is_one_line_and_nothing_is_made(kube, submit, method, path, status, message):
    kube.troubles = [Trouble(method, path, status, message="no", times=99)]
    failed = submit()
    assert failed.exit_code == 1, failed.output
    assert failed.stderr.startswith("error: kubernetes")
    assert failed.stderr.count("\n") == 1
    assert message in failed.stderr
    assert made(kube) == []


def test_the_fake_rejects_what_a_server_would(kube, submit):
    submit("--name", "night")
    made = kube.objects["rayjobs", "night"]
    assert manifest_problems({**made, "status": {}}, "rayjobs") == []
    for key, value in (("ttlSecondsAfterFinish", 1), ("submissionMode", "K8sJobmode"), ("backoffLimit", "x")):
        broken = {**made, "spec": {**made["spec"], key: value}}
        assert any(key in problem for problem in manifest_problems(broken, "rayjobs")), key


def test_a_name_that_another_object_has_is_rejected(kube, submit):
    kube.put("rayjobs", {"metadata": {"name": "night"}})
    rejected = submit("--name", "night")
    assert rejected.exit_code == 1
    assert "night exists and is not this job; give another --name" in rejected.stderr
    assert created(kube) == []


def test_racing_submitters_make_one_job(kube, config):
    request, printed = targets.make_request("refresh", load_config(config), "night"), []

    def send(_):
        return targets.send(request, targets.TargetOptions("k8s"), RENDERED, printed.append)[1]

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(send, range(4))] == ["night"] * 4
    assert printed.count("night is submitted") == 1
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
    assert made(kube) == []
    assert submit("--name", "night").stdout == "night is submitted\n"


def test_stop_of_a_job_that_does_not_exist_is_an_error(kube, submit):
    submit("--name", "night")
    for name in ("nihgt", "night-config", "NIGHT"):
        failed = multicsr("stop", name, *K8S)
        assert (failed.exit_code, failed.stdout) == (1, "")
        assert failed.stderr == f"error: no job {name}; see `multicsr jobs`\n"
    assert not any(request.startswith("DELETE") for request in kube.requests)
    assert jobs(kube) == ["night"]


@pytest.mark.parametrize("words", [("logs",), ("logs", "--follow"), ("status",), ("stop",)], ids=" ".join)
def test_a_name_that_no_job_has_is_the_same_line_for_every_command(kube, words):
    failed = multicsr(words[0], "absent", *words[1:], *K8S)
    assert (failed.exit_code, failed.stdout, failed.stderr) == (1, "", NO_JOB)


def test_stop_leaves_what_multicsr_did_not_submit(kube):
    kube.put("rayjobs", {"metadata": {"name": "of-others"}})
    failed = multicsr("stop", "of-others", *K8S)
    assert failed.exit_code == 1
    assert "of-others is a RayJob that multicsr did not submit" in failed.stderr
    assert jobs(kube) == ["of-others"]


def test_stop_does_not_delete_a_job_that_took_the_name_meanwhile(kube, submit):
    submit("--name", "night")
    real = kube.trouble

    def replace(request):
        if request.startswith("DELETE"):
            kube.remove("rayjobs", "night")
            kube.put("rayjobs", {"metadata": {"name": "night", "uid": "of-another"}})
        return real(request)

    kube.trouble = replace
    assert multicsr("stop", "night", *K8S).exit_code == 0
    assert kube.objects["rayjobs", "night"]["metadata"]["uid"] == "of-another"


def test_a_job_that_is_being_deleted_is_not_taken_for_one_that_runs(kube, submit):
    submit("--name", "night")
    kube.objects["rayjobs", "night"]["metadata"]["deletionTimestamp"] = "2026-11-25T00:00:00Z"
    rejected = submit("--name", "night")
    assert rejected.stderr == "error: night is being deleted; submit it again when it is gone\n"


def test_the_configuration_of_a_deleted_job_is_waited_out(kube, submit):
    """The garbage collector takes what a deleted job owned a while later."""
    owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "night", "uid": "of-before"}
    kube.put("configmaps", {"metadata": {"name": "night-config", "ownerReferences": [owner]}})
    threading.Timer(1.5, lambda: kube.remove("configmaps", "night-config")).start()
    assert submit("--name", "night").exit_code == 0
    owners = kube.objects["configmaps", "night-config"]["metadata"]["ownerReferences"]
    assert owners[0]["uid"] == kube.objects["rayjobs", "night"]["metadata"]["uid"]


@pytest.mark.parametrize(
    "owners",
    [None, [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "x", "uid": "u"}],
     [{"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "other", "uid": "u"}]],
    ids=["nobody's", "a Deployment's", "another job's"],
)  # fmt: skip
def test_a_foreign_configuration_is_rejected_before_anything_is_made(kube, submit, owners, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits for what does not go"))
    kube.put("configmaps", {"metadata": {"name": "night-config", "ownerReferences": owners}})
    failed = submit("--name", "night")
    assert failed.exit_code == 1
    assert "there is a ConfigMap night-config that is not of this job; nothing is submitted" in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert created(kube) == []
    assert made(kube) == [("configmaps", "night-config")]


def test_a_foreign_configuration_that_comes_in_between_leaves_no_job(kube, submit):
    kube.on_create = lambda name: kube.put("configmaps", {"metadata": {"name": f"{name}-config"}})
    failed = submit("--name", "night")
    assert failed.exit_code == 1
    assert "delete it, or give another --name" in failed.stderr
    assert made(kube) == [("configmaps", "night-config")]


def test_a_configuration_of_a_deleted_job_that_does_not_go_is_one_line(kube, submit, monkeypatch):
    monkeypatch.setattr(kube_module, "_GONE_S", 0.1)
    owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "night", "uid": "of-before"}
    kube.put("configmaps", {"metadata": {"name": "night-config", "ownerReferences": [owner]}})
    failed = submit("--name", "night")
    assert "there is a ConfigMap night-config" in failed.stderr
    assert jobs(kube) == []


@pytest.mark.parametrize("missing", ["multicsr-head", "multicsr-worker"])
def test_a_namespace_without_the_accounts_is_rejected_before_anything_is_made(kube, submit, missing):
    kube.remove("serviceaccounts", missing)
    failed = submit("--name", "night")
    assert (failed.exit_code, failed.stderr.count("\n")) == (1, 1)
    assert f"namespace multicsr has no service account {missing}, so k8s/base is not in it" in failed.stderr
    assert made(kube) == []


def test_a_namespace_that_is_not_there_is_rejected(kube, submit):
    failed = submit("--name", "night", "--namespace", "elsewhere")
    assert (failed.exit_code, failed.stderr.count("\n")) == (1, 1)
    assert "namespace elsewhere has no service account" in failed.stderr
    assert multicsr("jobs", *K8S, "--namespace", "elsewhere").exit_code == 0


def test_a_role_that_may_not_read_accounts_can_submit_all_the_same(kube, submit):
    kube.troubles = [Trouble("GET", "/serviceaccounts", 403, message="no", times=99)]
    assert submit("--name", "night").exit_code == 0


@pytest.mark.parametrize("words", [("jobs",), ("status", "x"), ("logs", "x"), ("stop", "x")], ids=" ".join)
def test_cluster_without_the_operator_s_kinds_is_reported(kube, words):
    kube.kinds -= {"rayjobs", "rayclusters"}
    failed = multicsr(*words, *K8S)
    assert (failed.exit_code, failed.stderr.count("\n")) == (1, 1)
    assert "RayJobs come with the KubeRay operator and its CRDs" in failed.stderr


def test_a_job_that_succeeded_runs_once_more_when_it_is_asked_for(kube, submit):
    submit("--name", "night")
    assert "night is there already" in submit("--name", "night", "--again").stdout
    kube.status("night", "Complete", "SUCCEEDED")
    printed = submit("--name", "night").stdout
    assert printed.startswith("night has succeeded: nothing is submitted; --again runs it once more")
    assert submit("--name", "night", "--again").stdout.endswith("night-2 is submitted\n")
    assert "night-2 is there already" in submit("--name", "night", "--again").stdout
    assert jobs(kube) == ["night", "night-2"]


def test_attempts_end_where_their_name_would_be_too_long(kube, submit):
    name = "x" * 44
    submit("--name", name)
    kube.objects["rayjobs", name]["metadata"]["annotations"]["multicsr.io/attempt"] = "99"
    kube.status(name, "Complete", "SUCCEEDED")
    failed = submit("--name", name, "--again")
    assert (failed.exit_code, failed.stderr.count("\n")) == (1, 1)
    assert "attempt 100 would have too long a name; give another --name" in failed.stderr


LOG = "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n"


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (LOG + "a line of the log\n" * 900 + "error: store: full\nmore\n", "AppFailed store: full"),
        (f"{LOG}error: first\n{'x' * 15_000}\nerror: last: é\r\n", "AppFailed last: é"),
        ("short\nand  plain", "AppFailed short and plain"),
    ],
)
def test_a_failed_job_s_message_is_its_last_error(kube, submit, message, cause):
    submit("--name", "night")
    kube.status("night", "Failed", "FAILED", reason="AppFailed", message=message)
    assert multicsr("status", "night", *K8S).stdout == f"night: failed (Failed; job FAILED; {cause})\n"
    shown = multicsr("logs", "night", "--follow", *K8S)
    assert shown.stdout == "[failed] Failed; job FAILED\n"
    assert shown.stderr == f"error: night: failed (Failed; job FAILED; {cause})\n"


def test_a_failed_job_s_message_without_an_error_is_cut_in_the_middle(kube, submit):
    submit("--name", "night")
    kube.status("night", "Failed", "FAILED", message=f"{LOG}{'noise ' * 3000}\nKilled at the end")
    (line,) = multicsr("status", "night", *K8S).stdout.splitlines()
    assert len(line) < 400
    assert "Job entrypoint command failed with exit code 1" in line
    assert line.endswith("Killed at the end)")


def test_jobs_and_status_report_what_there_is(kube, submit):
    submit("--name", "night")
    kube.put("rayjobs", {"metadata": {"name": "of-others"}})
    kube.status("night", "Running", "RUNNING")
    listed = multicsr("jobs", *K8S)
    assert "night" in listed.stdout
    assert "running" in listed.stdout
    assert "of-others" not in listed.stdout
    assert multicsr("status", "night", *K8S).stdout == "night: running (Running; job RUNNING)\n"
    absent = multicsr("status", "absent", *K8S)
    assert (absent.exit_code, absent.stderr) == (1, NO_JOB)


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


@pytest.mark.parametrize(
    "sidecars",
    [("istio-proxy",), ("istio-proxy", "vault-agent"), (SUBMITTER, "istio-proxy"), ("a", SUBMITTER, "b")],
)
def test_logs_are_those_of_the_submitter_among_sidecars(kube, submit, sidecars):
    submit("--name", "night")
    kube.pod("night", "night-a", "Running", "2026-11-25T00:00:01Z one", sidecars=sidecars)
    assert multicsr("logs", "night", *K8S).stdout == "one\n"


def test_a_submitter_that_waits_beside_a_sidecar_that_runs_is_one_line(kube, submit):
    submit("--name", "night")
    kube.pod("night", "night-a", "Running", sidecars=("istio-proxy",))
    text = 'container "ray-job-submitter" in pod "night-a" is waiting to start: PodInitializing'
    kube.troubles = [Trouble("GET", "/log", 400, message=text)]
    failed = multicsr("logs", "night", *K8S)
    assert failed.stderr == f"error: night: its log cannot be read: {text}\n"


def test_a_template_s_own_container_is_asked_for(kube, submit):
    submit("--name", "night")
    kube.put(
        "pods",
        {
            "metadata": {"name": "night-a", "labels": {"job-name": "night"}},
            "spec": {"containers": [{"name": "istio-proxy"}, {"name": "mine"}]},
            "status": {"phase": "Running", "containerStatuses": []},
        },
    )
    template = kube.objects["rayjobs", "night"]["spec"]["submitterPodTemplate"]
    template["spec"]["containers"][0]["name"] = "mine"
    multicsr("logs", "night", *K8S)
    assert any("/log?" in request and "container=mine" in request for request in kube.requests)
