"""Adapter of the Kubernetes client library: credentials, and single requests over HTTP.

No other module imports the library. It reads the kubeconfig, runs its exec plugin and renews the token.
Requests go directly to its connection pool, because its own `call_api` fails where it should report a TLS
error.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multicsr.deploy.kubernetes.transport import Identity, api_error_of, check_files, faults, tls_context
from multicsr.deploy.submit.retry import ApiError
from multicsr.errors import ConfigError

_ENTRY = re.compile(r"\{.*\}|<[^>]* object at 0x[0-9a-f]+>", re.DOTALL)
"""A whole kubeconfig entry in a message, which may hold tokens and passwords.

The library quotes the entry where a key is missing.
"""
Query = Sequence[tuple[str, str]]
"""Names and values of the query parameters of a request."""
_CONNECT_S, _READ_S = 5.0, 30.0
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError)
"""Exceptions that the library raises for an invalid kubeconfig.

ValueError includes Unicode and base64 errors.
"""


def connect(context: str | None) -> "KubernetesClient":
    """Connect to the cluster of a kubeconfig context, or to the cluster in which this pod runs.

    Args:
        context: context of the kubeconfig; None for the current one. Without it and without a kubeconfig,
            the service account of this pod is used.

    Raises:
        ConfigError: the extra is missing, the kubeconfig cannot be used, or there is no cluster.
    """
    try:
        from kubernetes import client, config  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ConfigError("--to k8s needs the extra: pip install 'multicsr[k8s]'") from error
    settings = client.Configuration()
    places = os.environ.get("KUBECONFIG") or config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION
    files = [
        file for place in places.split(os.pathsep) if place and (file := Path(place).expanduser()).exists()
    ]
    if files or context is not None:
        identity = _from_kubeconfig(settings, places, context)
    else:
        identity = _from_pod(settings, places)
    check_files(settings.ssl_ca_cert, settings.cert_file, settings.key_file, identity)
    api_client = client.ApiClient(settings)
    pools = api_client.rest_client.pool_manager.connection_pool_kw
    pools["ssl_context"] = tls_context(verified=bool(settings.verify_ssl))
    return KubernetesClient(api_client, identity, context)


def _from_kubeconfig(settings: Any, places: str, context: str | None) -> Identity:  # noqa: ANN401
    """Fill in the settings from the files of a kubeconfig.

    Raises:
        ConfigError: the files are no valid kubeconfig, or give no credentials.
    """
    import yaml
    from kubernetes.config import ConfigException  # type: ignore[import-untyped, unused-ignore]
    from kubernetes.config.kube_config import (  # type: ignore[import-untyped, unused-ignore]
        KubeConfigLoader,
        KubeConfigMerger,
    )

    where = f"--context {context}" if context is not None else f"kubeconfig {places}"
    try:
        merger = KubeConfigMerger(places)
        if merger.config is None:
            raise ConfigException(f"{places} is not there; set KUBECONFIG")
        loader = KubeConfigLoader(
            merger.config, active_context=context, config_base_path=None, config_persister=merger.save_changes
        )
        active = loader.current_context
        user_name, cluster_name = active["context"].get("user"), active["context"]["cluster"]
        user = _user(merger.config, user_name, active["name"])
        if not str(merger.config["clusters"].get_with_name(cluster_name)["cluster"]["server"]).startswith(
            ("https://", "http://")
        ):
            raise ConfigException(f"server of cluster {cluster_name}: write https://HOST:PORT")
        _require_known_provider(user, user_name)
        with _logged_errors() as logged:
            loader.load_and_set(settings)
        _use_proxy(settings, merger.config["clusters"].get_with_name(cluster_name)["cluster"])
    except yaml.YAMLError as error:
        raise ConfigError(f"kubeconfig {places}: it is not YAML: {_line(str(error))}") from error
    except ConfigException as error:
        raise ConfigError(f"{where}: {_without_entries(str(error))}") from error
    except _UNREADABLE as error:
        shape = "clusters, contexts and users must be lists of entries with a name"
        if isinstance(error, OSError):
            reason = f"{error.filename or places}: {error.strerror}"
        else:
            reason = f"{_without_entries(str(error))}; {shape}"
        raise ConfigError(f"kubeconfig {places}: it is no kubeconfig that can be read: {reason}") from error
    identity = Identity(f"kubeconfig {places}", cluster_name, user_name or "")
    needs_some = "exec" in user or settings.host.startswith("https")
    if user and needs_some and not (settings.api_key or settings.cert_file):
        raise ConfigError(_without_credentials(identity, user, logged))
    return identity


def _user(config: Any, name: str | None, context: str) -> dict[str, Any]:  # noqa: ANN401
    """Return the entry of a user as it is in the file; an empty dict if the context names no user."""
    from kubernetes.config import ConfigException

    if not name:
        return {}
    found = config["users"].get_with_name(name, safe=True)
    if found is None:
        raise ConfigException(f"context {context} names the user {name}, who is not among the users")
    entry = found.safe_get("user")
    return dict(entry) if isinstance(entry, dict) else {}


def _require_known_provider(user: dict[str, Any], name: str | None) -> None:
    """Raise for the auth-provider gcp, which Kubernetes has removed.

    Without this check the library would look for other credentials.

    Raises:
        ConfigException: the user has this provider.
    """
    from kubernetes.config import ConfigException

    provider = user.get("auth-provider")
    if isinstance(provider, dict) and provider.get("name") == "gcp":
        raise ConfigException(
            f"user {name}: auth-provider gcp is no part of Kubernetes since 1.26; install "
            "gke-gcloud-auth-plugin, then run gcloud container clusters get-credentials"
        )


def _use_proxy(settings: Any, cluster: Any) -> None:  # noqa: ANN401
    """Set the proxy from the `proxy-url` of a cluster, which the library does not read.

    As in kubectl, it takes precedence over environment variables.

    Raises:
        ConfigException: the URL is not http or https.
    """
    from kubernetes.config import ConfigException

    proxy = cluster.safe_get("proxy-url")
    if proxy is None:
        return
    if not str(proxy).startswith(("http://", "https://")):
        raise ConfigException(
            "proxy-url: write http://HOST:PORT or https://HOST:PORT; others are not supported"
        )
    settings.proxy, settings.no_proxy = str(proxy), None


def _without_credentials(identity: Identity, user: dict[str, Any], logged: list[str]) -> str:
    """Return the error message for a user entry that gives no credentials.

    Without credentials, requests would be anonymous.

    Args:
        logged: messages that the library has logged while it read the entry.
    """
    plugin = user.get("exec")
    if not isinstance(plugin, dict):
        return (
            f"{identity.source}: user {identity.user}: no credentials can be had from "
            f"{', '.join(map(str, user))}; log in again, or write a token, a certificate or an exec plugin"
        )
    if not (command := plugin.get("command")) or not isinstance(command, str):
        return f"{identity.source}: user {identity.user}: exec names no command"
    hint = _line(str(plugin.get("installHint") or ""))
    if shutil.which(command) is None:
        remedy = hint or "install it, or take another --context"
        return (
            f"{identity.source}: user {identity.user}: the exec plugin {command} is not installed; {remedy}"
        )
    why = _without_entries("; ".join(logged)) or "its answer has neither a token nor a certificate"
    return f"{identity.source}: user {identity.user}: the exec plugin {command} gives no credentials: {why}"


def _from_pod(settings: Any, places: str) -> Identity:  # noqa: ANN401
    from kubernetes.config import ConfigException, load_incluster_config

    try:
        load_incluster_config(client_configuration=settings)
    except ConfigException as error:
        raise ConfigError(
            "--to k8s: no cluster: set KUBECONFIG, or run in a pod with a service account "
            f"(there is no {places}; {_line(str(error))})"
        ) from error
    return Identity("the service account of this pod")


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """Collect the log messages of the library: only there does it report a failed exec plugin."""
    found: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.pathname.endswith("kube_config.py"):
            found.append(record.getMessage())
            return False
        return True

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield found
    finally:
        root.removeFilter(keep)


class KubernetesClient:
    """A connection to one API server. Each method makes one request and does not retry.

    Raises:
        ApiError: from every request that fails, also in the middle of a stream.
    """

    def __init__(self, client: Any, identity: Identity, context: str | None) -> None:  # noqa: ANN401
        self._client, self.identity, self._context = client, identity, context

    @property
    def server(self) -> str:
        """Return the URL of the API server."""
        return str(self._client.configuration.host)

    def renew(self) -> None:
        """Read the credentials again, because a new login or an exec plugin may have changed them."""
        fresh = connect(self._context)
        self._client, self.identity = fresh._client, fresh.identity

    def ask(self, method: str, path: str, query: Query = (), body: object = None) -> object:
        """Send a request; return the answer, parsed from JSON.

        Args:
            method: HTTP method.
            path: path of the URL.
            query: query parameters.
            body: body of the request, to be sent as JSON; None for no body.
        """
        answer = self._open(method, path, query, body, _READ_S)
        with faults(self.server, self.identity):
            data = answer.data
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ApiError(
                answer.status,
                f"its answer is not JSON: is {self.server} an API server? See {self.identity.server}",
                final=True,
            ) from error

    def _headers(self) -> dict[str, str]:
        """Return the headers of a request.

        Raises:
            ConfigError: HTTP cannot carry the token, for example because it has a line break.
        """
        headers = {"Accept": "application/json, */*", "Content-Type": "application/json"}
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        if not all(value.isascii() and value.isprintable() for value in headers.values()):
            user = f"user {self.identity.user} of " if self.identity.user else ""
            raise ConfigError(
                f"{user}{self.identity.source}: its token has characters that no token has, such as a line "
                "break; write it anew"
            )
        return headers

    def stream(self, path: str, query: Query, silence_s: float) -> Iterator[str]:
        """Open a stream at once; return an iterator over the lines of the answer as they arrive.

        Args:
            silence_s: time in seconds without data after which the stream fails with an ApiError.
        """
        return self._lines(self._open("GET", path, query, None, silence_s))

    def _lines(self, answer: Any) -> Iterator[str]:  # noqa: ANN401
        try:
            with faults(self.server, self.identity):
                for line in answer:
                    yield line.decode("utf-8", "replace").rstrip("\n")
        finally:
            answer.close()

    def _open(self, method: str, path: str, query: Query, body: object, read_s: float) -> Any:  # noqa: ANN401
        from urllib.parse import urlencode

        from urllib3 import Timeout

        client = self._client
        with faults(self.server, self.identity):
            headers = self._headers()
            answer = client.rest_client.pool_manager.request(
                method,
                f"{self.server}{path}" + (f"?{urlencode([*query])}" if query else ""),
                body=None if body is None else json.dumps(body),
                headers=headers,
                preload_content=False,
                redirect=False,
                retries=False,  # submit/retry.py decides which requests are repeated
                timeout=Timeout(connect=_CONNECT_S, read=read_s),
            )
            if not 200 <= answer.status < 300:
                raise api_error_of(answer.status, answer.headers, answer.data, answer.reason)
        return answer


def _without_entries(text: str) -> str:
    """Return a message of the library as one line, without the content of the kubeconfig entry at fault."""
    return _line(_ENTRY.sub("[...]", text))


def _line(text: str) -> str:
    return " ".join(text.split())
