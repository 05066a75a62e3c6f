"""Adapter of Ray's client of the Jobs API; no other module imports that client.

Ray itself finds the token: in RAY_AUTH_TOKEN, then in the file RAY_AUTH_TOKEN_PATH, then in
~/.ray/auth_token. It sends the token when RAY_AUTH_MODE is `token`. No other code of this project touches the
token.
"""

import asyncio
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from multicsr.deploy.submit.retry import ApiError, with_retries
from multicsr.errors import ConfigError, RunError
from multicsr.messages.error_chain import first_line
from multicsr.messages.network_errors import describe_tls

_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Environment variables that may hold the address, the most important one first."""
_STATUS = re.compile(r"status code (\d+)")
_PORT, _CONNECT_S, _READ_S = 8265, 10.0, 20.0
_GCS_PORTS = (6379, 10001)
"""Ray's defaults for its own protocol and for Ray Client; the Jobs API never listens there."""
_TOKEN = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"


def connect(address: str | None) -> "JobsApiClient":
    """Connect to the Jobs API at an address, by default that in RAY_API_SERVER_ADDRESS or RAY_ADDRESS.

    Raises:
        ConfigError: there is no address, or no Jobs API can be at it.
        RunError: no Jobs API answers, or the token is missing or not accepted.
    """
    source = "--address"
    if not address:
        source = next((name for name in _ADDRESSES if os.environ.get(name)), "")
        address = os.environ.get(source)
    if not address:
        raise ConfigError(
            f"--to ray needs an address: give --address http://HOST:8265, or set {_ADDRESSES[0]}"
        )
    url = jobs_api(address, source)
    try:
        with_retries(lambda: _reach(url))
        return with_retries(lambda: JobsApiClient(url))
    except ApiError as fault:
        hint = "; is it Ray's own port? The Jobs API listens at 8265" if _port(url) in _GCS_PORTS else ""
        raise RunError(f"ray: no Jobs API answers at {url}: {fault.text}{hint}") from fault


def jobs_api(address: str, source: str) -> str:
    """Return the URL of the Jobs API at an address. The default scheme is http, which Ray's dashboard uses.

    Args:
        address: host, host and port, or URL.
        source: the option or variable that holds the address, for messages.

    Raises:
        ConfigError: no Jobs API can be at such an address.
    """
    text = address.strip()
    url = text if "://" in text else f"http://{text}"
    remedy = f"write http://HOST:{_PORT}, the address of the Jobs API"
    try:
        parts, port = urlsplit(url), urlsplit(url).port
    except ValueError as error:
        raise ConfigError(f"{source} {address}: {error}; {remedy}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or text in ("auto", "local"):
        raise ConfigError(f"{source} {address}: there is no Jobs API at such an address; {remedy}")
    url = url.rstrip("/")
    return url if "://" in text or port or parts.path else f"{url}:{_PORT}"


def _reach(url: str) -> None:
    """Raise if no connection can be made within 10 s: Ray's client itself would wait for minutes.

    Raises:
        ApiError: the host name is not known, or the host does not answer in time or rejects the connection.
    """
    from requests.utils import get_environ_proxies

    host = urlsplit(url).hostname or ""
    if get_environ_proxies(url):
        return  # the proxy resolves the name
    try:
        socket.create_connection((host, _port(url)), _CONNECT_S).close()
    except socket.gaierror as error:
        raise ApiError(0, f"the name {host} is not known here", final=True) from error
    except TimeoutError as error:
        text = (
            f"no answer to the attempt to connect for {_CONNECT_S:.0f} s; check firewall, VPN or port-forward"
        )
        raise ApiError(0, text, final=True) from error
    except OSError as error:
        raise ApiError(0, error.strerror or first_line(error)) from error


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


class JobsApiClient:
    """A connection to the Jobs API of one cluster. Each method makes one request and does not retry.

    Raises:
        ApiError: from every method, if the request fails.
        RunError: from every method, if the token is missing or not accepted.
    """

    def __init__(self, address: str) -> None:
        from ray.job_submission import JobSubmissionClient

        class Client(JobSubmissionClient):  # type: ignore[misc] # ray is not typed
            """Ray's client with a time limit; without one, requests to a head that hangs wait forever."""

            def _do_request(self, *words: Any, **options: Any) -> Any:  # noqa: ANN401 - as Ray has it
                return super()._do_request(*words, **{"timeout": (_CONNECT_S, _READ_S), **options})

        logging.getLogger(JobSubmissionClient.__module__).setLevel(
            logging.WARNING
        )  # it logs the end of every job log
        self.address = address
        # These variables would override the address that we pass to Ray.
        kept = {name: os.environ.pop(name, None) for name in _ADDRESSES}
        try:
            with _faults(address):
                self._client: Any = Client(address)
        finally:
            os.environ.update({name: value for name, value in kept.items() if value is not None})

    def submit(
        self, name: str, entrypoint: str, metadata: Mapping[str, str], variables: Mapping[str, str]
    ) -> None:
        """Submit a job.

        Args:
            name: submission id of the job.
            entrypoint: shell command that the cluster runs.
            metadata: metadata of the job.
            variables: environment variables of the job.
        """
        with _faults(self.address):
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=name,
                metadata={**metadata},
                runtime_env={"env_vars": {**variables}} if variables else {},
            )

    def jobs(self) -> list[Any]:
        """Return Ray's JobDetails of all jobs that were submitted through the Jobs API."""
        with _faults(self.address):
            return [job for job in self._client.list_jobs() if job.submission_id]

    def job(self, name: str) -> Any:  # noqa: ANN401 - ray is not typed
        """Return Ray's JobDetails of a job."""
        with _faults(self.address):
            return self._client.get_job_info(name)

    def log(self, name: str) -> str:
        """Return the log of a job as it is now."""
        with _faults(self.address):
            return str(self._client.get_job_logs(name))

    def stop(self, name: str) -> None:
        """Ask the cluster to stop a job; do not wait for its end."""
        with _faults(self.address):
            self._client.stop_job(name)

    def tail(self, name: str) -> Iterator[str]:
        """Yield the log of a job from its beginning, in pieces, as it grows.

        The stream may end or fail at any time, also while the job runs.
        """
        loop = asyncio.new_event_loop()
        pieces = self._client.tail_job_logs(name)
        try:
            with _faults(self.address):
                while True:
                    try:
                        yield str(loop.run_until_complete(anext(pieces)))
                    except StopAsyncIteration:
                        return
        finally:
            loop.run_until_complete(pieces.aclose())
            loop.close()

    def nodes(self) -> list[Any]:
        """Return Ray's NodeState of all nodes that are alive."""
        from ray.util.state import list_nodes
        from ray.util.state.exception import RayStateApiException

        try:
            with _faults(self.address):
                nodes = list_nodes(address=self.address, detail=True, limit=10_000)
        except RayStateApiException as error:
            raise ApiError(0, first_line(error)) from error
        return [node for node in nodes if node.state == "ALIVE"]


@contextmanager
def _faults(address: str) -> Iterator[None]:
    """Translate the exceptions of Ray's client and of its HTTP libraries.

    Raises:
        ApiError: instead of such an exception.
        RunError: the token is missing or not accepted.
    """
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise RunError(_token_message(address, str(error))) from error
    except aiohttp.WSServerHandshakeError as error:
        raise ApiError(error.status, error.message) from error
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise ApiError(status, first_line(error)) from error
    except RuntimeError as error:
        found, message = _STATUS.search(str(error)), first_line(error)
        raise ApiError(
            int(found[1]) if found else 0, message, final=message.startswith("Version check")
        ) from error
    except requests.JSONDecodeError as error:
        raise ApiError(
            0, f"its answer is not JSON: is {address} the address of the Jobs API?", final=True
        ) from error
    except requests.ReadTimeout as error:
        raise ApiError(0, f"no answer for {_READ_S:.0f} s; is the head overloaded or stopped?") from error
    except (requests.RequestException, aiohttp.ClientError, OSError) as error:
        # After a TLS error Ray raises an error of its own without a cause; the TLS error is its context.
        tls = describe_tls(error.__context__ or error, address, setting="REQUESTS_CA_BUNDLE")
        raise ApiError(0, tls or first_line(error), final=tls is not None) from error
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:  # from the code of Ray's client that reads the answer
        text = (
            f"its answer is not that of the Jobs API ({first_line(error)}): is {address} the right address?"
        )
        raise ApiError(0, text, final=True) from error


def _token_message(address: str, text: str) -> str:
    if text.startswith("Authentication failed"):
        return f"ray: the cluster at {address} rejects this token (403); {_TOKEN} to the cluster's own"
    return f"ray: the cluster at {address} asks for a token (401); {_TOKEN}"
