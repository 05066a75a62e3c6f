"""An API server that starts anew denies everything for some seconds; credentials end in mid-job."""

import time

import pytest
import yaml
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.deploy.kubernetes import api
from multicsr.deploy.kubernetes import follow as kube_follow
from multicsr.deploy.submit import retry
from tests.deploy.conftest import MARKS, RENDERED, follow
from tests.support.fake_kube import Trouble
from tests.support.fake_server import TOKEN


@pytest.fixture
def server(submitted, monkeypatch):
    """The fake with a job; a denial is in doubt for two seconds."""
    monkeypatch.setattr(api, "_DENIED_POLL_S", 0.05)
    monkeypatch.setattr(api, "_DENIED_S", 2.0)
    return submitted


def run(*words: str):
    return CliRunner().invoke(app, [*words, "--to", "k8s"])


def starts(server, seconds: float):
    """The server is started anew: connections end, and for some time everybody is denied everything."""
    server.starts_until = time.monotonic() + seconds
    server.watch_ends_after = [0]


def test_a_restart_while_a_job_is_followed_is_waited_out(server):
    server.watch_ends_after = [1]
    shown = follow(
        server,
        lambda: starts(server, 1.0),
        lambda: server.status("night", "Running", "RUNNING"),
        lambda: None,
        lambda: server.status("night", "Complete", "SUCCEEDED"),
    )
    assert shown.exit_code == 0, shown.output
    assert "you may not" not in shown.output


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5, 6])
def test_a_restart_at_any_moment_of_a_submit_is_waited_out(server, config, after):
    """`after`: so many requests are answered before."""
    server.remove("rayjobs", "night")
    answered = iter(range(after + 1))
    real = server.trouble

    def trouble(request):
        if next(answered, None) == after:
            server.starts_until = time.monotonic() + 0.5
        return real(request)

    server.trouble = trouble
    words = ("submit", "refresh", str(config), "--overlay", str(RENDERED), "--name", "night")
    done = run(*words)
    if after == 0:  # nothing was allowed before: then a denial is believed
        assert "you may not list rayjobs.ray.io" in done.stderr
        return
    assert done.exit_code == 0, done.output
    assert ("rayjobs", "night") in server.objects
    assert ("configmaps", "night-config") in server.objects


def test_a_server_that_comes_up_between_two_requests_is_waited_for(server, config):
    """It denies the creation twice, and the reading that is asked for in between only the first time."""
    server.remove("rayjobs", "night")
    denied = iter((True, True, True))
    real = server.trouble

    def trouble(request):
        if ("POST" in request or "POST" in server.requests[-2]) and next(denied, False):
            return Trouble("", "", 403, message='rayjobs is forbidden: User "me" cannot do that')
        return real(request)

    server.trouble = trouble
    done = run("submit", "refresh", str(config), "--overlay", str(RENDERED), "--name", "night")
    assert done.exit_code == 0, done.output
    assert next(denied, None) is None


@pytest.mark.cluster
def test_a_right_that_is_taken_away_is_reported_in_the_end(server):
    shown = follow(server, lambda: starts(server, 60.0), lambda: server.status("night", "Running"))
    assert shown.exit_code == 1
    assert shown.stderr.count("\n") == 1
    assert "rayjobs.ray.io in namespace multicsr; have a Role" in shown.stderr


def test_a_right_that_was_never_there_is_reported_without_waiting(server, config, monkeypatch):
    monkeypatch.setattr(api, "_DENIED_S", 600.0)
    server.troubles = [Trouble("POST", "/rayjobs", 403, message="no", times=10**6)]
    done = run("submit", "refresh", str(config), "--overlay", str(RENDERED), "--name", "other")
    assert "you may not create rayjobs.ray.io" in done.stderr


def test_a_rejection_by_quota_is_not_asked_again(server, config):
    message = 'rayjobs.ray.io "other" is forbidden: exceeded quota: jobs, requested: count/rayjobs.ray.io=1'
    server.troubles = [Trouble("POST", "/rayjobs", 403, message=message, times=10**6)]
    done = run("submit", "refresh", str(config), "--overlay", str(RENDERED), "--name", "other")
    assert message in done.stderr
    assert "ResourceQuota raised" in done.stderr
    assert sum(request.startswith("POST") and "/rayjobs" in request for request in server.requests) == 1


def test_a_token_that_ends_is_read_again(server, tmp_path):
    def log_in():
        tree = server.kubeconfig()
        tree["users"][0]["user"]["token"] = "a-new-token"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(tree))

    def expire():
        server.tokens = {"a-new-token"}
        server.watch_ends_after = [0]
        server.status("night", "Running", "PENDING")

    server.watch_ends_after = [1]
    shown = follow(
        server,
        expire,
        log_in,
        lambda: None,
        lambda: server.status("night", "Complete", "SUCCEEDED"),
    )
    assert shown.exit_code == 0, shown.output
    assert TOKEN not in shown.output


def test_a_token_that_ends_and_stays_so_is_one_line(server):
    def expire():
        server.tokens = set()
        server.status("night", "Running", "RUNNING")

    server.watch_ends_after = [0]
    shown = follow(server, expire)
    assert shown.exit_code == 1
    assert "does not accept your credentials; log in again (user me of kubeconfig" in shown.stderr
    assert shown.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 502, "page": "<html><title>502 Bad Gateway</title></html>"},
        {"status": 500, "message": "etcdserver: leader changed"},
        {"status": 0, "cut": True},
        {"status": 429, "headers": {"Retry-After": "0"}},
    ],
    ids=["page", "500", "cut", "429"],
)
def test_what_passes_while_a_job_is_followed_is_waited_out(server, monkeypatch, trouble):
    monkeypatch.setattr(retry, "TRIES", 2)
    server.watch_ends_after = [1]
    again = [Trouble("GET", "/rayjobs", times=9, **trouble), Trouble("GET", "/pods", times=3, **trouble)]
    shown = follow(
        server,
        lambda: server.troubles.extend(again),
        lambda: server.status("night", "Running", "RUNNING"),
        *[lambda: None] * 3,
        lambda: server.status("night", "Complete", "SUCCEEDED"),
    )
    assert shown.exit_code == 0, shown.output
    assert "Traceback" not in shown.output


def test_a_server_that_stays_away_ends_the_following_with_one_line(server, monkeypatch):
    monkeypatch.setattr(retry, "TRIES", 2)
    monkeypatch.setattr(kube_follow, "_AWAY_S", 0.3)
    server.watch_ends_after = [0]

    def down():
        server.troubles = [Trouble("GET", "", 0, cut=True, times=10**6)]
        server.status("night", "Running")

    shown = follow(server, down)
    assert shown.exit_code == 1
    assert "the job does not depend on that: `multicsr logs night --follow` takes it up again" in shown.stderr
    assert shown.stdout.count("note: ") == 1


def test_a_job_that_is_made_anew_under_its_name_is_not_followed_on(server):
    def anew():
        server.remove("rayjobs", "night")
        server.put("rayjobs", {"metadata": {"name": "night", "labels": MARKS}})

    server.watch_ends_after = [0, 0]
    shown = follow(server, anew, lambda: server.status("night", "Complete", "SUCCEEDED"))
    assert shown.exit_code == 1
    assert shown.stderr == "error: night was deleted; submit it again to go on where it stopped\n"
