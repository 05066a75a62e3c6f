"""The one door to Ray's client of the Jobs API: one request, with the token that Ray itself finds.

Ray looks in RAY_AUTH_TOKEN, then at the file RAY_AUTH_TOKEN_PATH, then at ~/.ray/auth_token; it sends the
token when RAY_AUTH_MODE is `token`. No other code of ours touches it.
"""

import asyncio
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from multicsr.errors import ConfigError, RunError
from multicsr.storage.files import first_line
from multicsr.submit.retry import Fault, patiently

_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_STATUS = re.compile(r"status code (\d+)")
_TOKEN = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"


def connect(address: str | None) -> "Door":
    """The Jobs API at an address; by default that of RAY_API_SERVER_ADDRESS or RAY_ADDRESS.

    Raises:
        ConfigError: no address.
        RunError: nobody answers, or the token is missing or refused.
    """
    address = address or next((os.environ[name] for name in _ADDRESSES if os.environ.get(name)), None)
    if not address:
        raise ConfigError(f"--to ray: where? Give --address http://HOST:8265, or set {_ADDRESSES[0]}")
    where = address
    try:
        return patiently(lambda: Door(where))
    except Fault as fault:
        raise RunError(f"ray: nobody answers at {where}: {fault.text}") from fault


class Door:
    """One request, no second try. Raises Fault; RunError where the token is missing or refused."""

    def __init__(self, address: str) -> None:
        from ray.job_submission import JobSubmissionClient

        logging.getLogger(JobSubmissionClient.__module__).setLevel(
            logging.WARNING
        )  # it tells of every log's end
        self.address = address
        # Ray lets the variables win over what the caller says.
        kept = {name: os.environ.pop(name, None) for name in _ADDRESSES}
        try:
            with _faults(address):
                self._client: Any = JobSubmissionClient(address)
        finally:
            os.environ.update({name: value for name, value in kept.items() if value is not None})

    def submit(
        self, name: str, entrypoint: str, metadata: Mapping[str, str], variables: Mapping[str, str]
    ) -> None:
        with _faults(self.address):
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=name,
                metadata={**metadata},
                runtime_env={"env_vars": {**variables}} if variables else {},
            )

    def jobs(self) -> list[Any]:
        """ray's JobDetails of all jobs that were submitted."""
        with _faults(self.address):
            return [job for job in self._client.list_jobs() if job.submission_id]

    def job(self, name: str) -> Any:  # noqa: ANN401 - ray is not typed
        """ray's JobDetails."""
        with _faults(self.address):
            return self._client.get_job_info(name)

    def log(self, name: str) -> str:
        with _faults(self.address):
            return str(self._client.get_job_logs(name))

    def stop(self, name: str) -> None:
        """Ask for its end."""
        with _faults(self.address):
            self._client.stop_job(name)

    def tail(self, name: str) -> Iterator[str]:
        """The log from its beginning, in pieces, as it grows; ends or breaks at any time."""
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
        """ray's NodeState of all nodes that are alive."""
        from ray.util.state import list_nodes
        from ray.util.state.exception import RayStateApiException

        try:
            with _faults(self.address):
                nodes = list_nodes(address=self.address, detail=True, limit=10_000)
        except RayStateApiException as error:
            raise Fault(0, first_line(error)) from error
        return [node for node in nodes if node.state == "ALIVE"]


@contextmanager
def _faults(address: str) -> Iterator[None]:
    """What Ray's client and what it stands on raise, as a Fault."""
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise RunError(_refused(address, str(error))) from error
    except aiohttp.WSServerHandshakeError as error:
        raise Fault(error.status, error.message) from error
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise Fault(status, first_line(error)) from error
    except RuntimeError as error:
        found = _STATUS.search(str(error))
        raise Fault(int(found[1]) if found else 0, first_line(error)) from error
    except (requests.RequestException, aiohttp.ClientError, OSError) as error:
        raise Fault(0, first_line(error)) from error


def _refused(address: str, text: str) -> str:
    if text.startswith("Authentication failed"):
        return f"ray: the cluster at {address} refuses this token (403); {_TOKEN} to the cluster's own"
    return f"ray: the cluster at {address} asks for a token (401); {_TOKEN}"
