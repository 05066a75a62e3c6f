"""When Ray starts, with how many CPUs, and when it ends; a real one is left out."""

import socket
import threading
from contextlib import contextmanager

import pytest
import ray

from multicsr.errors import ConfigError, RunError
from multicsr.execution import ray_session
from multicsr.execution.ray_session import lazy_ray_session, start_ray


@pytest.fixture
def events(monkeypatch) -> list[str]:
    """Starts and ends, in order."""
    events: list[str] = []

    @contextmanager
    def connected(cpus: float):
        events.append(f"start with {cpus:g}")
        try:
            yield
        finally:
            events.append("end")

    monkeypatch.setattr(ray_session, "_connected", connected)
    monkeypatch.setattr(ray, "is_initialized", lambda: bool(events) and events[-1] != "end")
    return events


def test_what_needs_no_worker_starts_none(events):
    with lazy_ray_session(8):
        pass
    assert events == []


def test_all_share_one_until_the_end(events):
    with lazy_ray_session(8):
        with start_ray(2):
            assert events == ["start with 8"]
        with start_ray(16):
            pass
        assert events == ["start with 8"]
    assert events == ["start with 8", "end"]


def test_the_first_may_want_more_than_was_foreseen(events):
    with lazy_ray_session(1), start_ray(4):
        pass
    assert events == ["start with 4", "end"]


def test_alone_it_ends_with_its_block_and_after_an_error_too(events):
    with start_ray(3):
        assert events == ["start with 3"]
    assert events == ["start with 3", "end"]
    with pytest.raises(ZeroDivisionError), lazy_ray_session(1), start_ray():
        _ = 1 / 0
    with start_ray():
        pass
    assert events == ["start with 3", "end", "start with 1", "end", "start with 0", "end"]


@pytest.mark.parametrize(("slow", "other", "starts"), [(0, 0, 1), (2, 0, 3), (3, 0, 3), (1, 1, 2)])
def test_a_node_that_is_too_slow_is_started_again(monkeypatch, slow, other, starts):
    errors = [Exception("The current node timed out during startup. This ...")] * slow
    errors += [ValueError("no memory")] * other
    begun: list[int] = []

    def init(**settings):
        begun.append(settings["num_cpus"])
        if len(begun) <= len(errors):
            raise errors[len(begun) - 1]

    monkeypatch.setattr(ray, "init", init)
    if slow + other < 3 and not other:
        ray_session._start_here(4)
    else:
        with pytest.raises(Exception, match="no memory" if other else "timed out during startup"):
            ray_session._start_here(4)
    assert begun == [4] * starts


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "nowhere", "host:port", "host:99999"])
def test_what_is_no_address_of_a_cluster_is_what_the_user_wrote(address):
    with pytest.raises(ConfigError, match="RAY_ADDRESS: "):
        ray_session._require_listener(address)


def test_a_cluster_that_is_away_is_met_before_ray_tries():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(RunError, match=f"no Ray cluster answers at {address}: Connection refused"):
        ray_session._require_listener(address)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b""])
def test_another_server_is_no_cluster(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(RunError, match="is no Ray cluster"):
            ray_session._require_listener(f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join(5)


def test_the_start_is_announced_once(events, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    said = []
    with lazy_ray_session(1, said.append):
        assert said == []
        with start_ray():
            assert said == ["starting Ray on this machine"]
        with start_ray():
            pass
    assert len(said) == 1
