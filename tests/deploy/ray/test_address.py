"""Addresses of the Jobs API: a scheme may be left out; what cannot be one is one line at once."""

import http.server
import socket
import threading

import pytest
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.deploy.ray import client as ray_client
from multicsr.deploy.ray.client import jobs_api
from multicsr.deploy.submit import retry
from multicsr.errors import ConfigError
from tests.support.certificates import Authority


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://head:8265", "http://head:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("https://ray.example/prefix", "https://ray.example/prefix"),
        ("head:8265", "http://head:8265"),
        ("head", "http://head:8265"),
        ("10.0.0.7:80", "http://10.0.0.7:80"),
        ("[::1]:8265", "http://[::1]:8265"),
        (" head:8265 ", "http://head:8265"),
        ("HTTP://head:8265", "HTTP://head:8265"),
    ],
)
def test_an_address_without_a_scheme_is_http(address, url):
    assert jobs_api(address, "--address") == url


@pytest.mark.parametrize(
    "address",
    ["ray://head:10001", "auto", "local", "http://", "http://[::1", "head:99999", "head:x", "ftp://h"],
)
def test_what_no_jobs_api_can_have_is_rejected_with_the_right_form(address):
    with pytest.raises(ConfigError, match=r"^RAY_ADDRESS .*write http://HOST:8265"):
        jobs_api(address, "RAY_ADDRESS")


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(retry, "TRIES", 2)
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def line_of(words, code=1) -> str:
    failed = CliRunner().invoke(app, [*words, "--to", "ray"])
    assert (failed.exit_code, failed.stdout) == (code, ""), failed.output
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1, failed.stderr
    assert "Traceback" not in failed.stderr
    return failed.stderr


COMMANDS = [("jobs",), ("status", "x"), ("logs", "x"), ("logs", "x", "--follow"), ("stop", "x")]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_nobody_there_is_one_line_for_every_command(impatient, monkeypatch, words):
    line = line_of([*words, "--address", "127.0.0.1:1"])
    assert line == "error: ray: no Jobs API answers at http://127.0.0.1:1: Connection refused\n"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert line_of(words) == line


def test_a_host_that_is_not_known_is_not_asked_for_again(impatient, monkeypatch):
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: pytest.fail("it waits for another answer"))
    line = line_of(["jobs", "--address", "no-such-host.invalid:8265"])
    assert "the name no-such-host.invalid is not known here" in line


def test_ray_s_own_port_is_recognised(impatient, monkeypatch):
    monkeypatch.setattr(ray_client, "_GCS_PORTS", (1,))
    line = line_of(["jobs", "--address", "127.0.0.1:1"])
    assert "is it Ray's own port? The Jobs API listens at 8265" in line


class Other(http.server.BaseHTTPRequestHandler):
    """A server that is no Jobs API."""

    answer = (200, "text/html", b"<html>log in</html>")

    def do_GET(self):
        status, kind, body = self.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_): ...


@pytest.fixture
def other():
    """Serve an answer; the address."""
    servers = []

    def serve(answer, tls=None) -> str:
        handler = type("Handler", (Other,), {"answer": answer})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.handle_error = lambda *_: None
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<html>log in</html>"),
        (200, "application/json", b"[]"),
        (200, "application/json", b'{"ray_version": null}'),
        (200, "application/json", b"{}"),
        (404, "text/plain", b"404 page not found"),
        (500, "text/plain", b"broken\nover lines"),
        (502, "text/html", b"<html>Bad Gateway</html>"),
        (401, "application/json", b"{}"),
        (403, "text/html", b"no"),
        (302, "text/html", b""),
    ],
)
def test_another_server_is_one_line(impatient, other, answer):
    address = other(answer)
    assert address in line_of(["jobs", "--address", address])


def test_tls_that_does_not_fit_is_one_line(impatient, other, tmp_path):
    address = other((200, "application/json", b"{}"), Authority(tmp_path, "ca").server())
    line = line_of(["jobs", "--address", f"https://{address}"])
    assert f"TLS: the certificate of https://{address}" in line
    assert "REQUESTS_CA_BUNDLE" in line
    assert "does not speak TLS" in line_of(["jobs", "--address", f"https://{other((200, 'a/b', b''))}"])


def test_a_head_that_hangs_is_one_line(impatient, monkeypatch):
    """It accepts connections and never answers, as one that is stopped."""
    monkeypatch.setattr(ray_client, "_READ_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert "is the head overloaded or stopped?" in line_of(["jobs", "--address", address])
