"""One line with the remedy for what other libraries raise; the exceptions are real ones."""

import errno
import os
import socket
import ssl
import subprocess
import threading
import urllib.request

import boto3
import botocore.exceptions
import pyarrow as pa
import pytest
import ray.exceptions
import urllib3
from botocore.config import Config as BotoConfig
from pydantic import TypeAdapter
from ray.train.v2._internal.util import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from multicsr.errors import ConfigError, RunError
from multicsr.messages.foreign_errors import cannot_start, explain_error, translate_error
from multicsr.messages.network_errors import describe_tls


def raised_by(call) -> BaseException:
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - whatever it is
        call()
    return raised.value


def task_error(cause: Exception) -> Exception:
    """Return what `ray.get` raises for a task that raised `cause`."""
    text = f"ray::work()\nTraceback (most recent call last):\n  File 'x'\n{type(cause).__name__}: {cause}"
    return ray.exceptions.RayTaskError("work", text, cause, "p", 1, "127.0.0.1").as_instanceof_cause()


def botocore_client_error() -> Exception:
    answer = {"Error": {"Code": "SlowDown", "Message": "Please reduce\nyour request rate."}}
    return botocore.exceptions.ClientError(answer, "PutObject")


@pytest.mark.parametrize("number", [*errno.errorcode])
def test_every_error_of_the_system_names_file_and_reason(number):
    line = str(translate_error(OSError(number, os.strerror(number), "/data/x")))
    assert line.startswith(f"/data/x: {os.strerror(number)}")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), ["/data/x", "free some space"]),
        (OSError(errno.EROFS, "Read-only file system", b"/data/\xff"), ["read-only", "\\udcff"]),
        (OSError(errno.EMFILE, "Too many open files"), ["ulimit -n"]),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), ["/data/x", "permissions"]),
        (MemoryError(), ["no memory left", "actors"]),
        (
            ModuleNotFoundError("No module named 'peft'", name="peft"),
            ["peft", "pip install 'multicsr[lora]'"],
        ),
        (ModuleNotFoundError("No module named 'x.y'", name="x.y"), ["package x is", "multicsr check"]),
        (ray.exceptions.OutOfMemoryError("Task was killed"), ["memory of a node", "generate.actors"]),
        (ray.exceptions.ActorDiedError(), ["a Ray worker died"]),
        (ray.exceptions.WorkerCrashedError(), ["a Ray worker died"]),
        (ray.exceptions.NodeDiedError("x"), ["a node of the Ray cluster was lost"]),
        (ray.exceptions.LocalRayletDiedError(), ["Ray on this machine ended"]),
        (ray.exceptions.OutOfDiskError("x"), ["disk"]),
        (ray.exceptions.ObjectStoreFullError("x"), ["object store is full"]),
        (ray.exceptions.GetTimeoutError("x"), ["did not answer in time"]),
        (ray.exceptions.ObjectLostError("a" * 56, "owner", "stack"), ["was lost"]),
        (ray.exceptions.RaySystemError("broken"), ["Ray:"]),
        (botocore.exceptions.NoCredentialsError(), ["AWS_ACCESS_KEY_ID"]),
        (botocore.exceptions.ProfileNotFound(profile="x"), ["AWS_PROFILE"]),
        (botocore.exceptions.NoRegionError(), ["s3.region"]),
        (botocore_client_error(), ["SlowDown: Please reduce your request rate."]),
        (pa.ArrowInvalid("Couldn't deserialize thrift\nat 0"), ["Couldn't deserialize thrift"]),
        (urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.ProtocolError("x")), ["reached"]),
        (subprocess.CalledProcessError(3, ["git", "x"], stderr=b"a\nb"), ["`git x` ends with 3: a b"]),
        (raised_by(lambda: b"\xff".decode()), ["not utf-8 text"]),
        (raised_by(lambda: TypeAdapter(dict[str, int]).validate_python({"a": "b"})), ["a: Input should be"]),
        (raised_by(lambda: boto3.client("s3", "x").head_bucket(Bucket="A_b/c")), ["not valid", "store"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_known_failure_is_one_line_with_the_remedy(error, words):
    known = translate_error(error)
    assert isinstance(known, RunError)
    line = str(known)
    assert all(word in line for word in words), line
    assert "\n" not in line
    assert "Traceback" not in line


def test_a_task_is_judged_by_what_it_raised():
    full = task_error(OSError(errno.ENOSPC, "No space left on device", "/data/x"))
    assert str(translate_error(full)).startswith("/data/x: No space left on device")
    ours = translate_error(task_error(ConfigError("llm.model: x holds no weights")))
    assert isinstance(ours, ConfigError)
    assert str(ours) == "llm.model: x holds no weights"
    assert translate_error(task_error(KeyError("a"))) is None
    assert explain_error(task_error(KeyError("a"))) == "KeyError: 'a' (in a Ray worker)"


def test_what_is_no_state_of_the_world_is_not_translated():
    for error in (KeyError("x"), ValueError("x"), RecursionError("x"), AssertionError(), ZeroDivisionError()):
        assert translate_error(error) is None
    assert explain_error(RuntimeError("first\nsecond \x1b[2J")) == "RuntimeError: first second \\x1b[2J"


def user_error(cause: Exception) -> Exception:
    """Return what Ray Train makes of an exception in a worker."""
    return UserExceptionWithTraceback(cause, f"Traceback (most recent call last):\n  x\n{cause}")


@pytest.mark.parametrize(
    ("failures", "line"),
    [
        ([user_error(KeyError("x\ny"))], r"KeyError: 'x\ny' (in a Ray worker)"),
        ([user_error(ConfigError("train.mask: wrong"))], "train.mask: wrong"),
        ([ray.exceptions.ActorDiedError()], "a Ray worker died: "),
        ([user_error(ValueError("x")), ray.exceptions.OutOfMemoryError("x")], "the memory of a node is used"),
    ],
)
def test_a_training_that_failed_states_what_ended_its_workers(failures, line):
    by_rank = dict(enumerate(failures))
    text = "\n".join(f"[Rank {rank}]\n{failure}" for rank, failure in by_rank.items())
    assert explain_error(WorkerGroupError(text, by_rank)).startswith(line)
    if len(failures) == 1:
        assert explain_error(ControllerError(failures[0])).startswith(line)


def test_what_code_under_ray_data_raised_is_in_the_text_alone():
    text = (
        "\x1b[36mray::MapBatches()\x1b[39m (pid=1)\n  File 'x'\nKeyError: 'first'\n\nThe above exception was "
        "the direct cause of the following exception:\n\n\x1b[36mray::MapBatches()\x1b[39m (pid=1)\n"
        "ray.exceptions.UserCodeException: UDF failed to process a data block.\nTo change retries"
    )
    cause = ray.exceptions.UserCodeException("UDF failed to process a data block.")
    error = ray.exceptions.RayTaskError("work", text, cause, "p", 1, "127.0.0.1").as_instanceof_cause()
    assert explain_error(error) == "KeyError: 'first' (in a Ray worker)"
    assert explain_error(cause) == "UDF failed to process a data block. (in a Ray worker)"


def test_an_error_of_ray_without_a_message_has_a_line():
    assert explain_error(ray.exceptions.RayError()) == "Ray: RayError"


def test_an_unrelated_error_met_before_hides_nothing():
    def fails():
        try:
            os.stat("/there/is/none")
        except FileNotFoundError:
            {}["key"]

    assert translate_error(raised_by(fails)) is None


def test_an_exception_whose_message_cannot_be_made_has_a_line():
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert explain_error(Broken()) == "Broken: its message cannot be shown (RuntimeError)"


def test_a_server_that_is_away_is_named():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    urllib3_error = raised_by(
        lambda: urllib3.PoolManager(retries=False).request("GET", f"http://127.0.0.1:{port}")
    )
    assert f"127.0.0.1:{port} cannot be reached: Connection refused" in explain_error(urllib3_error)
    urllib_error = raised_by(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}"))
    assert "Connection refused" in explain_error(urllib_error)
    quick = BotoConfig(retries={"total_max_attempts": 1})
    client = boto3.client(
        "s3",
        "x",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=quick,
    )
    assert "S3 cannot be reached" in explain_error(raised_by(client.list_buckets))


def test_what_does_not_start_states_why_and_what_to_do():
    error = cannot_start(
        "ray", RuntimeError("a\nTraceback (most recent call last):\n  x\nOSError: full"), "free some"
    )
    assert str(error) == "ray: RuntimeError: OSError: full; free some"


@pytest.fixture
def plain_server():
    """A server that does not speak TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


def test_a_port_without_tls_is_reported(plain_server):
    url = f"https://127.0.0.1:{plain_server}"
    line = describe_tls(raised_by(lambda: urllib3.PoolManager(retries=False).request("GET", url)), server=url)
    assert line == f"TLS: {url} does not speak TLS at this port; correct https:// or the port"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("certificate verify failed: certificate has expired", "has expired"),
        ("certificate verify failed: Hostname mismatch, certificate is not valid for 'x'", "another host"),
        ("certificate verify failed: unable to get local issuer certificate", "name the authority"),
        ("certificate verify failed: self-signed certificate", "name the authority"),
        ("tlsv13 alert certificate required", "certificate of this client"),
    ],
)
def test_tls_states_whose_certificate_which_authority_and_which_setting(reason, words):
    deep = urllib3.exceptions.MaxRetryError(
        None,
        "/",
        urllib3.exceptions.SSLError(ssl.SSLCertVerificationError(1, f"[SSL: X] {reason} (_ssl.c:1)")),
    )
    line = describe_tls(deep, "https://k8s:6443", "certificate-authority of context dev", "KUBECONFIG")
    assert words in line
    assert "https://k8s:6443" in line
    assert "KUBECONFIG" in line or "has expired" in line or "another host" in line
