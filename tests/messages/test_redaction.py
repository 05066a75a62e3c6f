"""Secrets are hidden wherever a message quotes them, and ordinary text stays as it is."""

import logging

import pytest

from multicsr.cli.entrypoint import guarded
from multicsr.errors import RunError
from multicsr.messages.redaction import redact

KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    "text",
    [
        "https://user:S3cr3tWord@host/x",
        "https://S3cr3tWord@host/x",
        "s3://AKIAIOSFODNN7EXAMPLE:S3cr3tWord/with/slash@bucket/x",
        "https://user:S3cr3tWord@x@host:8080/y",
        "http://host/v1?api_key=S3cr3tWord&x=1",
        "http://host/v1?x=1&key=S3cr3tWord",
        "http://host/?X-Amz-Signature=S3cr3tWord&a=b",
        "http://host/?X-Amz-Credential=S3cr3tWord/2026/eu&a=b",
        "Authorization: Bearer S3cr3tWord12",
        "{'Authorization': 'Bearer S3cr3tWord12'}",
        "headers {'X-Api-Key': 'S3cr3tWord12'}",
        '{"password": "S3cr3tWord"}',
        "aws_secret_access_key = S3cr3tWord",
        "RAY_AUTH_TOKEN=S3cr3tWord",
        "token: S3cr3tWord12",
        "-----BEGIN RSA PRIVATE KEY-----\nS3cr3tWord\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nS3cr3tWord",
    ],
)
def test_a_secret_is_hidden(text):
    shown = redact(text)
    assert "S3cr3tWord" not in shown
    assert "***" in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "token",
    [
        KEY,
        "sk-proj-abcdefghijklmnopqrstuvwx",
        "hf_abcdefghijklmnopqrstuvwxyz",
        "ghp_abcdefghijklmnopqrstuvwxyz012345",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijk",
    ],
)
def test_a_token_is_known_by_its_shape(token):
    assert token not in redact(f"the server refuses {token}, sorry")


@pytest.mark.parametrize(
    "name", ["MY_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "CLIENT_SECRET", "HF_TOKEN"]
)
def test_values_of_secret_variables_are_hidden(name, monkeypatch):
    monkeypatch.setenv(name, SECRET)
    assert SECRET not in redact(f"GET /x?q={SECRET} failed")
    assert "wJalrXUtnFEMI" not in redact("GET /x?q=wJalrXUtnFEMI%2FK7MDENG%2BbPxRfiCYEXAMPLEKEY failed")


@pytest.mark.parametrize(
    "text",
    [
        "store: cannot reach http://127.0.0.1:9000/bucket/a@b: Connection refused",
        "s3://bucket/prefix/a@b/part-0001.parquet has other bytes than its manifest says",
        "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token",
        "the cluster asks for a token (401)",
        "llm.max_new_tokens: 5 is too few",
        "unexpected token: name",
        "basic authentication is needed",
        "git@github.com:x/y.git",
        "train.mask.sigma: 1.2 is above 1",
        "row_id 3f2a, key 9b1c",
    ],
)
def test_ordinary_text_stays(text, monkeypatch):
    for name in ("HF_TOKEN", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert redact(text) == text


def test_errors_log_records_and_details_are_redacted(capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def ours() -> None:
        logging.getLogger("x").error("asked %s", "https://user:S3cr3tWord@host")
        raise RunError("s3.endpoint: https://user:S3cr3tWord@host is away")

    def foreign() -> None:
        raise KeyError("https://user:S3cr3tWord@host")

    assert guarded(ours, debug=False) == 1
    assert guarded(foreign, debug=False) == 1
    assert guarded(foreign, debug=True) == 1
    out, err = capfd.readouterr()
    files = [*tmp_path.glob("multicsr-error-*")]
    assert len(files) == 2
    shown = out + err + "".join(file.read_text() for file in files)
    assert "S3cr3tWord" not in shown
    assert shown.count("***") >= 6
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
