"""Translation of exceptions of network clients: TLS, HTTP, S3, Kubernetes, the Hugging Face hub."""

import re
import ssl
import urllib.error

from multicsr.messages.error_chain import class_names, error_chain, first_sentence
from multicsr.messages.terminal import one_line

_TLS_REASONS = (
    ("has expired", "has expired", "correct the clock of this machine or have the certificate renewed"),
    ("not yet valid", "is not valid yet", "correct the clock of this machine"),
    ("hostname mismatch", "is for another host", "use the host's name that stands in it"),
    ("ip address mismatch", "is for another address", "use the host's name that stands in it"),
    ("doesn't match", "is for another host", "use the host's name that stands in it"),
    ("self-signed", "is signed by itself or by an unknown authority", ""),
    ("self signed", "is signed by itself or by an unknown authority", ""),
    ("unable to get local issuer", "is signed by an unknown authority", ""),
    ("unable to get issuer", "is signed by an unknown authority", ""),
    ("certificate signature failure", "is signed by another authority of the same name", ""),
    ("revoked", "is revoked", "have it renewed"),
    ("verify failed", "cannot be verified", ""),
)


def describe_tls(
    error: BaseException,
    server: str = "the server",
    authority: str = "the authorities that this machine trusts",
    setting: str = "SSL_CERT_FILE, REQUESTS_CA_BUNDLE or AWS_CA_BUNDLE",
) -> str | None:
    """Return one line on a failed TLS handshake anywhere in the chain of `error`; None if there was none.

    Args:
        error: the outermost exception.
        server: name of the certificate's server, such as the URL.
        authority: name of the authority against which the certificate was checked.
        setting: names of the settings that can name another authority.
    """
    failures = [each for each in error_chain(error) if isinstance(each, ssl.SSLError) or _is_tls(each)]
    if not failures:
        return None
    text = " ".join(one_line(str(each)) for each in failures)
    for words, what, remedy in _TLS_REASONS:
        if words in text.lower():
            other = remedy or f"name the authority that signed it in {setting}"
            return f"TLS: the certificate of {server} {what} (checked against {authority}); {other}"
    if "alert" in text.lower() and "certificate" in text.lower():
        return f"TLS: {server} rejects the certificate of this client; renew it in {setting}"
    if re.search(
        r"wrong version number|record layer|http request|unknown protocol|packet length", text.lower()
    ):
        return f"TLS: {server} does not speak TLS at this port; correct https:// or the port"
    return f"TLS: the handshake with {server} failed: {one_line(str(failures[-1]))}; see {setting}"


def _is_tls(error: BaseException) -> bool:
    return bool(class_names(error) & {"SSLError", "ClientConnectorCertificateError", "CertificateError"})


def translate_network(error: BaseException) -> str | None:
    """Translate exceptions of HTTP clients: urllib3, requests, aiohttp, the Kubernetes client."""
    if tls := describe_tls(error):
        return tls
    names = class_names(error)
    where = _host_of(error)
    if "ApiException" in names or "OpenApiException" in names:
        status, reason = getattr(error, "status", None), getattr(error, "reason", None)
        return f"kubernetes: the server answers {status or ''} {reason or first_sentence(error)}"
    if names & {"ConfigException"}:
        return f"kubernetes: {first_sentence(error)}; check KUBECONFIG"
    if names & {"NameResolutionError", "ClientConnectorDNSError", "gaierror"}:
        return f"the name of {where} is not known here; check the address and the network"
    if "NewConnectionError" not in names and names & {
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "TimeoutError",
        "Timeout",
        "ServerTimeoutError",
    }:
        return f"{where} does not answer in time; check the address and the network"
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status", None)
    if status:
        return f"{where} answers with HTTP status {status}: {first_sentence(error)}"
    return f"{where} cannot be reached: {_innermost(error)}; check the address and the network"


def _host_of(error: BaseException) -> str:
    for each in error_chain(error):
        pool = getattr(each, "conn", None) or getattr(each, "pool", None)
        if (host := getattr(pool, "host", None) or getattr(each, "host", None)) is not None:
            return f"{host}:{getattr(pool, 'port', None) or getattr(each, 'port', '')}".rstrip(":")
    return "the server"


def _innermost(error: BaseException) -> str:
    """Return the operating system's message, or else the first sentence of the error."""
    errors = [each for each in error_chain(error) if isinstance(each, OSError) and each.strerror]
    return one_line(str(errors[-1].strerror)) if errors else first_sentence(error)


def translate_boto(error: BaseException) -> str | None:
    """Translate those exceptions of boto3 and botocore that `storage/s3.py` does not handle."""
    if tls := describe_tls(error, setting="AWS_CA_BUNDLE"):
        return tls
    names = class_names(error)
    if names & {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "NoAuthTokenError",
    }:
        return (
            "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the "
            f"machine's role ({first_sentence(error)})"
        )
    if names & {"TokenRetrievalError", "SSOError", "SSOTokenLoadError", "UnauthorizedSSOTokenError"}:
        return f"the AWS login has expired; `aws sso login` renews it ({first_sentence(error)})"
    if names & {"ProfileNotFound", "ConfigNotFound", "ConfigParseError"}:
        return f"AWS: {first_sentence(error)}; check AWS_PROFILE and ~/.aws/config"
    if "NoRegionError" in names:
        return "AWS: no region; set s3.region or AWS_DEFAULT_REGION"
    if "ParamValidationError" in names:
        return f"AWS: a value is not valid: {one_line(str(error)).partition(': ')[2]}; check store and s3"
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        details = response.get("Error") or {}
        message = f"{details.get('Code', 'error')}: {details.get('Message', '')}".rstrip(": ")
        return f"AWS rejects {getattr(error, 'operation_name', 'a request')}: {one_line(message)}"
    if names & {
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ConnectionClosedError",
    }:
        return f"S3 cannot be reached: {first_sentence(error)}; check s3.endpoint and the network"
    return f"AWS: {first_sentence(error)}"


def translate_urllib(error: BaseException) -> str | None:
    """Translate exceptions of urllib."""
    if tls := describe_tls(error):
        return tls
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.url} answers with HTTP status {error.code} ({error.reason})"
    if isinstance(error, urllib.error.URLError):
        return f"a server cannot be reached: {_innermost(error)}; check the address and the network"
    return None


def translate_hub(error: BaseException) -> str | None:
    """Translate exceptions of the Hugging Face hub's client."""
    if tls := describe_tls(error):
        return tls
    return f"Hugging Face hub: {first_sentence(error)}; check the model's name, the network and HF_TOKEN"
