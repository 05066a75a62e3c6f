"""Following a RayJob: through watches that break, and never believing the pod that submits it."""

import threading
import time

import pytest
from typer.testing import CliRunner

from multicsr.cli import app
from multicsr.submit import kube_follow, retry
from multicsr.submit.jobs import Phase, Seen
from multicsr.submit.kube import KubeCluster
from multicsr.submit.kube_api import KubeApi
from multicsr.submit.kube_door import connect
from tests.submit.fake_kube import Trouble

MARKS = {"multicsr.io/run": "night", "app.kubernetes.io/part-of": "multicsr"}


@pytest.fixture
def night(kube, monkeypatch):
    """A job without an operator: the test says what happens."""
    monkeypatch.setattr(kube_follow, "_LOOK_S", 0.05)
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.01)
    kube.put("rayjobs", {"metadata": {"name": "night", "labels": MARKS}})
    return kube


def follow(night, *steps):
    """What is shown while the steps are taken: one every 0.2 s, from the first look at the job on."""
    over = threading.Event()

    def take():
        while not night.requests and not over.is_set():
            time.sleep(0.01)
        for step in steps:
            time.sleep(0.2)
            step()

    thread = threading.Thread(target=take)
    thread.start()
    shown = CliRunner().invoke(app, ["logs", "night", "--to", "k8s", "--follow"])
    over.set()
    thread.join()
    return shown


def test_states_and_log_are_shown_to_the_end(night):
    shown = follow(
        night,
        lambda: night.status("night", "Initializing"),
        lambda: night.status("night", "Running", "PENDING"),
        lambda: night.pod("night", "night-a", "Running", "2026-11-25T00:00:01Z begins"),
        lambda: night.status("night", "Running", "RUNNING"),
        lambda: night.logs["night-a"].append("2026-11-25T00:00:02Z ends"),
        lambda: night.pod("night", "night-a", "Succeeded"),
        lambda: night.status("night", "Complete", "SUCCEEDED"),
    )
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert [line for line in lines if line.startswith("[")] == [
        "[waiting] not looked at yet; job not submitted",
        "[waiting] Initializing; job not submitted",
        "[running] Running; job PENDING",
        "[running] Running; job RUNNING",
        "[succeeded] Complete; job SUCCEEDED",
    ]
    assert [line for line in lines if line in ("begins", "ends")] == ["begins", "ends"]
    assert lines[-1] == "night: succeeded (Complete; job SUCCEEDED)"


def test_a_failed_job_fails_though_its_pod_exited_well(night):
    shown = follow(
        night,
        lambda: night.pod("night", "night-a", "Succeeded", "2026-11-25T00:00:01Z error: no file"),
        lambda: night.status("night", "Failed", "FAILED", reason="AppFailed", message="exit code 2"),
    )
    assert shown.exit_code == 1
    assert "error: no file" in shown.stdout
    assert shown.stderr == "error: night: failed (Failed; job FAILED; AppFailed exit code 2)\n"


@pytest.mark.parametrize(
    ("deployment", "job"),
    [("ValidationFailed", ""), ("Complete", "STOPPED"), ("Failed", "RUNNING"), ("Complete", "")],
)
def test_only_success_is_success(night, deployment, job):
    assert follow(night, lambda: night.status("night", deployment, job)).exit_code == 1


def test_a_watch_that_breaks_is_begun_anew(night):
    night.watch_ends_after = [0, 1, 0]
    states = [("Initializing", ""), ("Running", "PENDING"), ("Running", "RUNNING"), ("Running", "SUCCEEDED")]
    steps = [lambda state=state: night.status("night", *state) for state in states]
    shown = follow(night, *steps, lambda: night.status("night", "Complete", "SUCCEEDED"))
    assert shown.exit_code == 0, shown.output
    assert night.watch_ends_after == []
    assert sum("watch=1" in request for request in night.requests) >= 4


def test_versions_that_are_gone_are_read_anew(night):
    night.gone_versions = True
    shown = follow(night, lambda: night.status("night", "Complete", "SUCCEEDED"))
    assert shown.exit_code == 0, shown.output
    assert night.gone_versions is False


def test_servers_in_trouble_are_waited_for(night):
    night.troubles = [
        Trouble("GET", "watch=1", 500, times=2),
        Trouble("GET", "watch=1", 429, {"Retry-After": "1"}),
        Trouble("GET", "/rayjobs/night", 503, times=2),
        Trouble("GET", "/pods", 500, times=2),
    ]
    shown = follow(night, *[lambda: None] * 8, lambda: night.status("night", "Complete", "SUCCEEDED"))
    assert shown.exit_code == 0, shown.output
    assert not any(trouble.times for trouble in night.troubles)


def test_a_log_that_breaks_is_told_once(night):
    night.troubles = [Trouble("GET", "/log", 500, times=2)]
    shown = follow(
        night,
        lambda: night.pod(
            "night", "night-a", "Running", *[f"2026-11-25T00:00:{n:02d}Z {n}" for n in range(9)]
        ),
        lambda: night.pod("night", "night-a", "Running", "2026-11-25T00:01:00Z last"),
        lambda: night.pod("night", "night-a", "Succeeded"),
        lambda: night.status("night", "Complete", "SUCCEEDED"),
    )
    told = [line for line in shown.stdout.splitlines() if line.isdigit() or line == "last"]
    assert told == [*map(str, range(9)), "last"]


def test_a_log_that_may_not_be_read_does_not_end_the_watch(night):
    night.troubles = [Trouble("GET", "/pods", 403, times=99)]
    shown = follow(night, lambda: None, lambda: night.status("night", "Complete", "SUCCEEDED"))
    assert shown.exit_code == 0, shown.output
    assert "the log cannot be told: kubernetes: you may not list pods in namespace multicsr" in shown.stdout


def test_a_watch_that_is_forbidden_is_one_line(night):
    night.troubles = [Trouble("GET", "watch=1", 403, times=99)]
    shown = follow(night)
    assert shown.exit_code == 1
    assert "you may not watch rayjobs.ray.io in namespace multicsr" in shown.stderr


def test_a_job_that_is_deleted_meanwhile_is_one_line(night):
    shown = follow(night, lambda: night.remove("rayjobs", "night"))
    assert shown.exit_code == 1
    assert shown.stderr == "error: night was deleted; submit it again to go on where it stopped\n"


class Jobs:
    """The Jobs API of a cluster, with one job or none."""

    def __init__(self, phase: Phase | None) -> None:
        self.phase = phase

    def find(self, name: str) -> Seen | None:
        return Seen(name, self.phase) if self.phase else None


@pytest.mark.parametrize(
    ("deployment", "job", "there", "finding"),
    [
        ("Running", "RUNNING", Phase.RUNNING, None),
        ("Complete", "SUCCEEDED", Phase.SUCCEEDED, None),
        ("Running", "RUNNING", Phase.FAILED, "the RayJob says RUNNING, the Jobs API failed"),
        ("Running", "SUCCEEDED", Phase.SUCCEEDED, "nodes are held; if that lasts, `multicsr stop night`"),
        ("Failed", "RUNNING", Phase.RUNNING, "has ended, but the job is running: only deleting its cluster"),
        ("Running", "RUNNING", None, "the RayJob says RUNNING, the Jobs API knows no such job"),
    ],
)
def test_a_rayjob_and_the_jobs_api_may_disagree(night, deployment, job, there, finding):
    night.status("night", deployment, job)
    cluster = KubeCluster(KubeApi(connect(None), "multicsr"), lambda: Jobs(there))
    found = cluster.findings("night")
    assert (len(found) == 1 and finding in found[0]) if finding else found == []
