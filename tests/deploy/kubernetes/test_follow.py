"""Following a RayJob: through watches that break, and never believing the pod that submits it."""

import threading

import pytest

from multicsr.cli import jobs as cli_jobs
from multicsr.deploy.kubernetes.api import KubeApi
from multicsr.deploy.kubernetes.client import connect
from multicsr.deploy.kubernetes.jobs import KubeCluster
from multicsr.deploy.submit.job import JobStatus, Phase
from multicsr.messages.terminal import OutputClosed
from tests.deploy.conftest import follow
from tests.support.fake_kube import Trouble


def test_states_and_log_are_shown_to_the_end(submitted):
    shown = follow(
        submitted,
        lambda: submitted.status("night", "Initializing"),
        lambda: submitted.status("night", "Running", "PENDING"),
        lambda: submitted.pod("night", "night-a", "Running", "2026-11-25T00:00:01Z begins"),
        lambda: submitted.status("night", "Running", "RUNNING"),
        lambda: submitted.logs["night-a"].append("2026-11-25T00:00:02Z ends"),
        lambda: submitted.pod("night", "night-a", "Succeeded"),
        lambda: submitted.status("night", "Complete", "SUCCEEDED"),
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


def test_a_failed_job_fails_though_its_pod_exited_well(submitted):
    shown = follow(
        submitted,
        lambda: submitted.pod("night", "night-a", "Succeeded", "2026-11-25T00:00:01Z error: no file"),
        lambda: submitted.status("night", "Failed", "FAILED", reason="AppFailed", message="exit code 2"),
    )
    assert shown.exit_code == 1
    assert "error: no file" in shown.stdout
    assert shown.stderr == "error: night: failed (Failed; job FAILED; AppFailed exit code 2)\n"


@pytest.mark.parametrize(
    ("deployment", "job"),
    [("ValidationFailed", ""), ("Complete", "STOPPED"), ("Failed", "RUNNING"), ("Complete", "")],
)
def test_only_success_is_success(submitted, deployment, job):
    assert follow(submitted, lambda: submitted.status("night", deployment, job)).exit_code == 1


def test_a_watch_that_breaks_is_begun_anew(submitted):
    submitted.watch_ends_after = [0, 1, 0]
    states = [("Initializing", ""), ("Running", "PENDING"), ("Running", "RUNNING"), ("Running", "SUCCEEDED")]
    steps = [lambda state=state: submitted.status("night", *state) for state in states]
    shown = follow(submitted, *steps, lambda: submitted.status("night", "Complete", "SUCCEEDED"))
    assert shown.exit_code == 0, shown.output
    assert submitted.watch_ends_after == []
    assert sum("watch=1" in request for request in submitted.requests) >= 4


def test_watches_that_a_proxy_ends_at_once_are_repeated_with_pauses(submitted):
    submitted.watch_lasts_s = 0.0
    shown = follow(
        submitted, *[lambda: None] * 10, lambda: submitted.status("night", "Complete", "SUCCEEDED")
    )
    assert shown.exit_code == 0, shown.output
    assert 2 <= sum("watch=1" in request for request in submitted.requests) <= 12


def test_versions_that_are_gone_are_read_anew(submitted):
    submitted.gone_versions = True
    shown = follow(submitted, lambda: submitted.status("night", "Complete", "SUCCEEDED"))
    assert shown.exit_code == 0, shown.output
    assert submitted.gone_versions is False


def test_servers_in_trouble_are_waited_for(submitted):
    submitted.troubles = [
        Trouble("GET", "watch=1", 500, times=2),
        Trouble("GET", "watch=1", 429, {"Retry-After": "1"}),
        Trouble("GET", "/rayjobs/night", 503, times=2),
        Trouble("GET", "/pods", 500, times=2),
    ]
    shown = follow(submitted, *[lambda: None] * 8, lambda: submitted.status("night", "Complete", "SUCCEEDED"))
    assert shown.exit_code == 0, shown.output
    assert not any(trouble.times for trouble in submitted.troubles)


def test_a_log_that_breaks_is_reported_once(submitted):
    submitted.troubles = [Trouble("GET", "/log", 500, times=2)]
    shown = follow(
        submitted,
        lambda: submitted.pod(
            "night", "night-a", "Running", *[f"2026-11-25T00:00:{n:02d}Z {n}" for n in range(9)]
        ),
        lambda: submitted.pod("night", "night-a", "Running", "2026-11-25T00:01:00Z last"),
        lambda: submitted.pod("night", "night-a", "Succeeded"),
        lambda: submitted.status("night", "Complete", "SUCCEEDED"),
    )
    printed = [line for line in shown.stdout.splitlines() if line.isdigit() or line == "last"]
    assert printed == [*map(str, range(9)), "last"]
    asked = [request for request in submitted.requests if "/log?" in request]
    assert "sinceTime" not in asked[0]
    assert "sinceTime=2026-11-25T00" in asked[-1], "the whole log is not sent again"


def test_the_rest_of_a_log_is_read_after_the_connection_broke_at_the_end(submitted):
    submitted.troubles = [Trouble("GET", "/log", 500, times=2)]
    shown = follow(
        submitted,
        lambda: submitted.pod("night", "night-a", "Succeeded", "2026-11-25T00:00:01Z last"),
        lambda: submitted.status("night", "Complete", "SUCCEEDED"),
    )
    assert shown.exit_code == 0, shown.output
    assert "last" in shown.stdout.splitlines()


def test_the_log_is_reported_beside_a_sidecar_that_does_not_end(submitted):
    """The pod runs on; only the container that submits has ended."""
    shown = follow(
        submitted,
        lambda: submitted.pod(
            "night", "night-a", "Running", "2026-11-25T00:00:01Z one", sidecars=("istio-proxy",)
        ),
        lambda: submitted.pod("night", "night-a", "Succeeded", "2026-11-25T00:00:02Z two"),
        *[lambda: None] * 2,
        lambda: submitted.status("night", "Complete", "SUCCEEDED"),
    )
    assert shown.exit_code == 0, shown.output
    assert [line for line in shown.stdout.splitlines() if line in ("one", "two")] == ["one", "two"]
    asked = [request for request in submitted.requests if "/log?" in request]
    assert len(asked) <= 2, "a log that has ended is not read again"


def test_a_log_that_may_not_be_read_does_not_end_the_watch(submitted):
    submitted.troubles = [Trouble("GET", "/pods", 403, times=99)]
    shown = follow(submitted, lambda: None, lambda: submitted.status("night", "Complete", "SUCCEEDED"))
    assert shown.exit_code == 0, shown.output
    assert "the log cannot be read: kubernetes: you may not list pods in namespace multicsr" in shown.stdout


def test_a_watch_that_is_forbidden_is_one_line(submitted):
    submitted.troubles = [Trouble("GET", "watch=1", 403, times=99)]
    shown = follow(submitted)
    assert shown.exit_code == 1
    assert "you may not watch rayjobs.ray.io in namespace multicsr" in shown.stderr


def test_a_reader_that_has_enough_ends_the_following(submitted, monkeypatch):
    """As with `| head`: the log is told in a thread, which must not end in a traceback of its own."""
    real = cli_jobs.echo_log

    def closed(text):
        if text == "one":
            raise OutputClosed
        real(text)

    monkeypatch.setattr(cli_jobs, "echo_log", closed)
    failures = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    shown = follow(
        submitted,
        lambda: submitted.pod("night", "night-a", "Running", "2026-11-25T00:00:01Z one"),
        lambda: None,
        lambda: submitted.status("night", "Running", "RUNNING"),
    )
    assert failures == []
    assert "Traceback" not in shown.output
    assert "[running]" not in shown.stdout


def test_a_job_that_is_deleted_meanwhile_is_one_line(submitted):
    shown = follow(submitted, lambda: submitted.remove("rayjobs", "night"))
    assert shown.exit_code == 1
    assert shown.stderr == "error: night was deleted; submit it again to go on where it stopped\n"


class Jobs:
    """The Jobs API of a cluster, with one job or none."""

    def __init__(self, phase: Phase | None) -> None:
        self.phase = phase

    def find(self, name: str) -> JobStatus | None:
        return JobStatus(name, self.phase) if self.phase else None


@pytest.mark.parametrize(
    ("deployment", "job", "there", "finding"),
    [
        ("Running", "RUNNING", Phase.RUNNING, None),
        ("Complete", "SUCCEEDED", Phase.SUCCEEDED, None),
        ("Running", "RUNNING", Phase.FAILED, "the RayJob reports RUNNING, the Jobs API failed"),
        ("Running", "SUCCEEDED", Phase.SUCCEEDED, "nodes are held; if that lasts, `multicsr stop night`"),
        ("Failed", "RUNNING", Phase.RUNNING, "has ended, but the job is running: only deleting its cluster"),
        ("Running", "RUNNING", None, "the RayJob reports RUNNING, the Jobs API knows no such job"),
    ],
)
def test_a_rayjob_and_the_jobs_api_may_disagree(submitted, deployment, job, there, finding):
    submitted.status("night", deployment, job)
    cluster = KubeCluster(KubeApi(connect(None), "multicsr"), lambda: Jobs(there))
    found = cluster.findings("night")
    assert (len(found) == 1 and finding in found[0]) if finding else found == []
