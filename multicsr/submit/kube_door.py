"""The one door to the Kubernetes client library: who we are, and one request over HTTP."""

import json
import os
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from typing import Any

from multicsr.errors import ConfigError
from multicsr.submit.retry import Fault

Query = Sequence[tuple[str, str]]
_CONNECT_S, _READ_S = 5.0, 30.0


def connect(context: str | None) -> "Door":
    """The cluster of a kubeconfig context (default: the current one), or the one that this pod is in.

    Raises:
        ConfigError: the extra is missing, or there is neither.
    """
    try:
        from kubernetes import client, config  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ConfigError("--to k8s needs the extra: pip install 'multicsr[k8s]'") from error
    settings = client.Configuration()
    try:
        places = os.environ.get("KUBECONFIG") or None  # the library looks when it is imported
        config.load_kube_config(places, context=context, client_configuration=settings)
    except config.ConfigException as error:
        if context is not None:
            raise ConfigError(f"--context {context}: {_line(str(error))}") from error
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException:
            raise ConfigError(
                "--to k8s: no cluster: set KUBECONFIG, or run in a pod with a service account "
                f"({_line(str(error))})"
            ) from error
    settings.retries = False  # what to ask again is decided in retry.py
    return Door(client.ApiClient(settings))


class Door:
    """One request, no second try. Raises Fault, also in the middle of a stream."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - the library is not typed
        self._client = client

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._client.configuration.host)

    def ask(self, method: str, path: str, query: Query = (), body: object = None) -> object:
        """The answer, parsed."""
        answer = self._open(method, path, query, body, _READ_S)
        with _Faults():
            return json.loads(answer.data)

    def lines(self, path: str, query: Query, silence_s: float) -> Iterator[str]:
        """The lines of an answer as they come, until the server ends it; silence is a fault."""
        answer = self._open("GET", path, query, None, silence_s)
        try:
            with _Faults():
                for line in answer:
                    yield line.decode("utf-8", "replace").rstrip("\n")
        finally:
            answer.close()

    def _open(self, method: str, path: str, query: Query, body: object, read_s: float) -> Any:  # noqa: ANN401
        with _Faults():
            return self._client.call_api(
                path,
                method,
                query_params=[*query],
                header_params={"Accept": "application/json, */*", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _preload_content=False,
                _request_timeout=(_CONNECT_S, read_s),
            )


class _Faults:
    """What the library raises, as a Fault."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from kubernetes.client import ApiException  # type: ignore[import-untyped, unused-ignore]
        from urllib3.exceptions import HTTPError

        if isinstance(error, ApiException):
            raise Fault(error.status or 0, _told(error), _seconds(error)) from error
        if isinstance(error, HTTPError | HTTPException | OSError | ValueError):
            raise Fault(0, _line(str(error))) from error


def _told(error: Any) -> str:  # noqa: ANN401
    """The message of the Status that the server answers with."""
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        status = json.loads(body)
    except ValueError:
        status = None
    told = status.get("message") if isinstance(status, dict) else body
    return _line(str(told or error.reason))


def _seconds(error: Any) -> float | None:  # noqa: ANN401
    """Of Retry-After, if it is there and a number."""
    text = str((error.headers or {}).get("Retry-After", ""))
    return float(text) if text.isdigit() else None


def _line(text: str) -> str:
    return " ".join(text.split())
