"""TLS with the API server: what does not fit is one line that names certificate, authority and setting."""

import base64
import socket
import ssl
import threading
import time

import pytest
import yaml
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.deploy.submit import retry
from tests.support.certificates import Authority
from tests.support.fake_kube import FakeKube, Trouble

COMMANDS = [
    ("jobs",),
    ("status", "night"),
    ("logs", "night"),
    ("logs", "night", "--follow"),
    ("stop", "night"),
]


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path, "cluster-ca")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command against a fake; `ca` goes into the kubeconfig, `scheme` into its address."""
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.01)

    def call(fake, *words, ca=None, scheme=None, user=None, **cluster):
        config = fake.kubeconfig()
        entry = config["clusters"][0]["cluster"]
        entry |= cluster
        if ca:
            entry["certificate-authority-data"] = base64.b64encode(ca.file.read_bytes()).decode()
        if scheme:
            entry["server"] = f"{scheme}://{entry['server'].partition('://')[2]}"
        if user:
            config["users"][0]["user"] |= user
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        return CliRunner().invoke(app, [*(words or ("jobs",)), "--to", "k8s"])

    return call


def line_of(done, exit_code=1) -> str:
    assert done.exit_code == exit_code, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_server_with_the_right_certificate_is_trusted(authority, run):
    with FakeKube(authority.server()) as fake:
        done = run(fake, ca=authority)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_another_authority_is_one_line_for_every_command(authority, run, tmp_path, words):
    other = Authority(tmp_path, "other-ca")
    with FakeKube(authority.server()) as fake:
        line = line_of(run(fake, *words, ca=other))
        assert fake.requests == []
    assert f"TLS: the certificate of {fake.url} is signed by" in line
    assert f"certificate-authority of cluster fake in kubeconfig {tmp_path}/kubeconfig" in line


def test_an_authority_that_is_not_named_is_one_line(authority, run):
    with FakeKube(authority.server()) as fake:
        line = line_of(run(fake))
    assert "certificate-authority of cluster fake" in line


def test_an_authority_of_the_same_name_with_another_key_is_one_line(authority, run, tmp_path):
    (tmp_path / "again").mkdir()
    with FakeKube(authority.server()) as fake:
        line = line_of(run(fake, ca=Authority(tmp_path / "again", "cluster-ca")))
    assert "certificate-authority of cluster fake" in line


def test_an_expired_certificate_is_one_line(authority, run):
    with FakeKube(authority.server(days=-1)) as fake:
        line = line_of(run(fake, ca=authority))
    assert f"the certificate of {fake.url} has expired" in line


@pytest.mark.parametrize("host", ["10.0.0.1", "api.example"])
def test_a_certificate_for_another_host_is_one_line_with_the_setting(authority, run, host):
    with FakeKube(authority.server(host)) as fake:
        line = line_of(run(fake, ca=authority))
    assert f"the certificate of {fake.url} is for another" in line
    assert "tls-server-name" in line


def test_the_name_in_tls_server_name_is_the_one_that_counts(authority, run):
    with FakeKube(authority.server("api.example")) as fake:
        done = run(fake, ca=authority, **{"tls-server-name": "api.example"})
    assert done.exit_code == 0, done.output


def test_plain_http_on_a_port_that_should_speak_tls_is_one_line(authority, run):
    with FakeKube() as fake:
        line = line_of(run(fake, ca=authority, scheme="https"))
    assert "does not speak TLS" in line
    assert "server of cluster fake" in line


def test_http_to_a_port_that_speaks_tls_is_one_line(authority, run, monkeypatch):
    monkeypatch.setattr(retry, "TRIES", 2)
    with FakeKube(authority.server()) as fake:
        line = line_of(run(fake, ca=authority, scheme="http"))
    assert "server of cluster fake" in line


def test_a_missing_client_certificate_is_one_line(authority, run):
    with FakeKube(authority.server(clients=True)) as fake:
        line = line_of(run(fake, ca=authority))
    assert "client-certificate and client-key of user me" in line


def test_a_client_certificate_of_another_authority_is_one_line(authority, run, tmp_path):
    certificate, key = Authority(tmp_path, "other-ca").issue("me")
    user = {"client-certificate": str(certificate), "client-key": str(key)}
    with FakeKube(authority.server(clients=True)) as fake:
        line = line_of(run(fake, ca=authority, user=user))
    assert "client-certificate and client-key of user me" in line


def test_the_right_client_certificate_is_taken(authority, run):
    certificate, key = authority.issue("me")
    user = {"client-certificate": str(certificate), "client-key": str(key)}
    with FakeKube(authority.server(clients=True)) as fake:
        done = run(fake, ca=authority, user=user)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("what", ["other key", "no key", "no PEM", "encrypted key"])
def test_files_of_a_client_that_do_not_fit_are_one_line(authority, run, tmp_path, what):
    from cryptography.hazmat.primitives import serialization

    certificate, key = authority.issue("me")
    if what == "other key":
        _, key = authority.issue("you")
    elif what == "no PEM":
        certificate.write_text("nonsense")
    elif what == "encrypted key":
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        locked = serialization.BestAvailableEncryption(b"password")
        key.write_bytes(
            loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
        )
    user = {"client-certificate": str(certificate), "client-key": str(key)}
    if what == "no key":
        del user["client-key"]
    with FakeKube(authority.server()) as fake:
        line = line_of(run(fake, ca=authority, user=user), exit_code=2)
    assert "client-certificate and client-key of user me" in line


def test_an_authority_that_is_no_pem_is_one_line(authority, run):
    authority.file.write_text("nonsense")
    with FakeKube() as fake:
        line = line_of(run(fake, ca=authority, scheme="https"), exit_code=2)
    assert "certificate-authority of cluster fake" in line


def test_a_certificate_that_does_not_fit_is_not_tried_again(authority, run, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits for another answer"))
    with FakeKube(authority.server(days=-1)) as fake:
        line_of(run(fake, ca=authority))


def test_a_certificate_that_is_not_valid_yet_is_one_line(authority, run):
    with FakeKube(authority.server(begun=-1)) as fake:
        line = line_of(run(fake, ca=authority))
    assert f"the certificate of {fake.url} is not valid yet" in line
    assert "clock" in line


def test_an_expired_authority_is_one_line(run, tmp_path):
    old = Authority(tmp_path, "old-ca", days=-1)
    with FakeKube(old.server()) as fake:
        line = line_of(run(fake, ca=old))
    assert "has expired" in line
    assert "certificate-authority of cluster fake" in line


def test_a_certificate_that_signs_itself_is_one_line(authority, run, tmp_path):
    """The server shows the authority itself instead of a certificate that it signed."""
    other = Authority(tmp_path, "itself")
    with FakeKube(other.itself()) as fake:
        line = line_of(run(fake, ca=authority))
    assert "is signed by itself or by an unknown authority" in line


def test_a_server_of_old_protocols_is_one_line(authority, run):
    context = authority.server()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    with FakeKube(context) as fake:
        line = line_of(run(fake, ca=authority))
    assert f"TLS: the handshake with {fake.url} failed" in line


def test_a_port_that_hangs_up_is_no_matter_of_certificates(authority, run, monkeypatch):
    monkeypatch.setattr(retry, "TRIES", 2)
    with socket.create_server(("127.0.0.1", 0)) as server, FakeKube() as fake:
        fake.url = f"https://127.0.0.1:{server.getsockname()[1]}"
        threading.Thread(target=hang_up, args=(server, 2), daemon=True).start()
        line = line_of(run(fake, ca=authority))
    assert "does not answer" in line
    assert "certificate" not in line


def hang_up(server, times):
    for _ in range(times):
        server.accept()[0].close()


def test_verification_that_is_switched_off_is_not_done(authority, run):
    with FakeKube(authority.server("api.example", days=-1)) as fake:
        done = run(fake, **{"insecure-skip-tls-verify": True})
    assert done.exit_code == 0, done.output


def test_redirects_to_a_login_page_are_one_line(authority, run):
    with FakeKube(authority.server()) as fake:
        fake.troubles = [Trouble("GET", "", 302, {"Location": "https://login.example/?state=1"})]
        line = line_of(run(fake, ca=authority))
    assert "redirect to https://login.example/" in line
