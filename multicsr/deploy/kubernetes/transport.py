"""Translation of network, TLS and HTTP errors of the API server into a Fault with the remedy in its text."""

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from urllib3.exceptions import HTTPError

from multicsr.deploy.submit.retry import ApiError
from multicsr.errors import ConfigError
from multicsr.messages.error_chain import class_names, error_chain
from multicsr.messages.foreign_errors import explain_error
from multicsr.messages.network_errors import describe_tls
from multicsr.messages.terminal import one_line

_LONGEST = 600
"""Limit, in characters, for a server's text in a message."""
_OWN_WORDS = {"NameResolutionError", "ReadTimeoutError", "ProxyError"}
"""Exceptions that hold more information than the operating system's error that caused them."""
_MODIFIED = "the object has been modified; please apply your changes to the latest version"
"""Message of a conflict: two requests changed one object at the same time, so nothing was created.

An example of the object is a ResourceQuota that counts both requests.
"""
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


class Identity(NamedTuple):
    """Source of the address and the credentials, for messages."""

    source: str
    """The kubeconfig, or the service account of a pod."""
    cluster: str = ""
    user: str = ""

    @property
    def authority(self) -> str:
        """Return the name of the setting that holds the CA certificate."""
        return (
            f"certificate-authority of cluster {self.cluster} in {self.source}"
            if self.cluster
            else self.source
        )

    @property
    def certificate(self) -> str:
        """Return the names of the settings that hold the certificate of the caller."""
        return f"client-certificate and client-key of user {self.user} in {self.source}"

    @property
    def server(self) -> str:
        """Return the name of the setting that holds the address of the server."""
        return f"server of cluster {self.cluster} in {self.source}" if self.cluster else self.source


def tls_context(*, verified: bool) -> ssl.SSLContext:
    """Return a TLS context that verifies certificates as kubectl does.

    From Python 3.13 on the default is OpenSSL's strict mode, which rejects authorities and certificates
    without the identifiers of keys. Those of some clusters have none.

    Args:
        verified: False if the kubeconfig has `insecure-skip-tls-verify`.
    """
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if verified else ssl.CERT_NONE)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def check_files(ca: str | None, certificate: str | None, key: str | None, identity: Identity) -> None:
    """Raise if a certificate or a key that the kubeconfig names cannot be used.

    Args:
        ca: file of the CA certificates, if there is one.
        certificate: file of the certificate of the caller, if there is one.
        key: file of the key for that certificate, if there is one.

    Raises:
        ConfigError: a file cannot be used; the message names its setting.
    """
    context = ssl.create_default_context()
    if ca:
        try:
            context.load_verify_locations(ca)
        except OSError as error:
            raise ConfigError(f"{identity.authority}: no certificates in PEM: {_reason(error)}") from error
    if certificate and not (key and Path(key).is_file()):
        raise ConfigError(f"{identity.certificate}: there is a certificate without a key")
    if certificate:
        try:
            # Without a password here, OpenSSL would ask for the password of an encrypted key in the terminal.
            context.load_cert_chain(certificate, key, password=lambda: "")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{identity.certificate}: they cannot be used together: {_reason(error)}"
            ) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "they are not PEM").replace("_", " ").lower()
    return one_line((error.strerror if isinstance(error, OSError) else None) or str(error))


@contextmanager
def faults(server: str, identity: Identity) -> Iterator[None]:
    """Translate the exceptions of urllib3.

    Raises:
        ApiError: instead of such an exception.
    """
    try:
        yield
    except (HTTPError, HTTPException, OSError) as error:
        text = _tls_text(error, server, identity)
        raise ApiError(0, text or _transport_text(error), final=text is not None) from error


def _transport_text(error: BaseException) -> str:
    """Return the reason why there is no answer, without the representation of the library's objects."""
    chain = [*error_chain(error)]
    if any(class_names(each) & _OWN_WORDS for each in chain):
        return explain_error(error)
    reasons = [each.strerror for each in chain if isinstance(each, OSError) and each.strerror]
    return one_line(reasons[-1] if reasons else str(chain[-1])) or type(error).__name__


def _tls_text(error: BaseException, server: str, identity: Identity) -> str | None:
    """Return the message for a TLS error; None if the connection broke or there is no TLS error."""
    broken = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    chain = [*error_chain(error)]
    if any(isinstance(each, broken) for each in chain):
        return None
    is_alert = any("ALERT" in str(each.reason or "") for each in chain if isinstance(each, ssl.SSLError))
    setting = identity.certificate if is_alert else identity.authority
    text = describe_tls(error, server, identity.authority, setting)
    if text is None:
        return None
    if "for another" in text:
        return f"{text}, or write that name into tls-server-name beside {identity.server}"
    return f"{text} ({identity.server})" if "does not speak TLS" in text else text


def api_error_of(status: int, headers: Mapping[str, str], body: bytes, reason: str | None) -> ApiError:
    """Return the Fault for an answer whose status is not 2xx.

    Args:
        reason: reason phrase of the HTTP status, if there is one.
    """
    after = str(headers.get("Retry-After", ""))
    text, word = _status_of(body.decode("utf-8", "replace"))
    if 300 <= status < 400:
        place = headers.get("Location", "elsewhere")
        return ApiError(status, f"answers with a redirect to {place}; is this the API server?", final=True)
    return ApiError(
        status,
        text or f"{status} {reason or ''}".strip(),
        float(after) if after.isascii() and after.isdigit() else None,
        reason=word,
        busy=status == 409 and _MODIFIED in text,
    )


def _status_of(body: str) -> tuple[str, str]:
    """Return message and reason of a Kubernetes Status; for any other body, its text and an empty reason."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and found.get("kind") == "Status":
        return _short(str(found.get("message") or "")), str(found.get("reason") or "Unknown")
    if "<html" in body.lower():
        title = _TITLE.search(body)
        return _short(title[1] if title else ""), ""
    return _short(body), ""


def _short(text: str) -> str:
    line = one_line(text[: 4 * _LONGEST])
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} [...]"
