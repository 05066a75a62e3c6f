"""Errors of the API server as one line that names the problem and the remedy."""

import re
from typing import NamedTuple

from multicsr.deploy.kubernetes.objects import Resource
from multicsr.deploy.kubernetes.transport import Identity
from multicsr.deploy.submit.retry import ApiError
from multicsr.errors import RunError

UNAUTHORISED, FORBIDDEN, ABSENT, TAKEN, GONE = 401, 403, 404, 409, 410
_UNKNOWN_KIND = "the server could not find the requested resource"
_SPEAKS_TLS = "HTTP request to an HTTPS server"
"""Text of Go's standard library."""
_NO_RIGHT = re.compile(r'^(?!admission webhook)(.*? is forbidden: )?User "[^"]*" cannot ')
"""Beginning of the message of every Kubernetes authorizer.

Admission, which comes later, has other messages.
"""
_WEBHOOK = re.compile(r"^admission webhook \S+ denied the request")
"""Message of a webhook, which chooses the status code itself."""
_ADMISSION = re.compile(
    r"^admission webhook|denied (the )?request|exceeded quota|failed quota|violates PodSecurity"
    r"|is forbidden: "
)
_REMEDIES = (
    ("exceeded quota", "stop another job (`multicsr jobs`), ask for less, or have the ResourceQuota raised"),
    ("failed quota", "write the requests and limits that the ResourceQuota asks for into the overlay"),
    ("violates PodSecurity", "change the pods of the overlay, or the namespace's Pod Security level"),
    ("being terminated", "wait until the namespace is gone, and make it again: kubectl apply -k k8s/base"),
    ("error looking up service account", "make the account: kubectl apply -k k8s/base"),
    ("failed calling webhook", "the program behind that webhook does not answer; have it started or removed"),
    ("failed to call webhook", "the program behind that webhook does not answer; have it started or removed"),
    (
        "admission webhook",
        "a policy of this cluster rejects it: change the overlay, or ask who runs that webhook",
    ),
    (
        "ValidatingAdmissionPolicy",
        "a policy of this cluster rejects it: change the overlay, or ask who made it",
    ),
    ("is forbidden: ", "an admission rule of the namespace rejects it: change the overlay, or the rule"),
)


class ServerAway(RunError):
    """A missing answer, or a temporary error, of the API server; the job itself does not depend on it."""


class Denied(RunError):
    """A request for which the caller has no right."""


class ApiRequest(NamedTuple):
    """Verb and resource of a request, for messages and for the record of what was allowed before."""

    verb: str
    resource: Resource


def is_absent(fault: ApiError) -> bool:
    """Return whether the object does not exist; a kind that the server does not know is another case."""
    if _WEBHOOK.match(fault.text):
        return False
    return fault.status == ABSENT and fault.reason != "" and _UNKNOWN_KIND not in fault.text


def is_taken(fault: ApiError) -> bool:
    """Return whether an object of that name exists; other conflicts do not show that."""
    return fault.status == TAKEN and fault.reason == "AlreadyExists" and not _WEBHOOK.match(fault.text)


def is_denied(fault: ApiError) -> bool:
    """Return whether the caller is not known or lacks a right.

    A server that is starting may answer the same although the caller has the right.
    """
    return fault.status in (UNAUTHORISED, FORBIDDEN) and not _is_admission(fault.text)


def translate(
    fault: ApiError, asked: ApiRequest, namespace: str, server: str, identity: Identity
) -> RunError:
    """Return a fault as an error for the user.

    Args:
        asked: the request that failed.
        server: URL of the API server.
        identity: source of the address and the credentials.

    Returns:
        `ServerAway` for a temporary fault, `Denied` for a missing right, otherwise RunError.
    """
    resource = asked.resource.full
    what = f"{asked.verb} {resource} in namespace {namespace}"
    if fault.status == FORBIDDEN or _WEBHOOK.match(fault.text):
        return _forbidden(fault.text, asked, namespace, server, identity)
    if fault.status == UNAUTHORISED:
        return RunError(
            f"kubernetes: {server} does not accept your credentials; log in again ({_log_in(identity)})"
        )
    if fault.status == ABSENT:
        missing = "a namespace comes with `kubectl apply -k k8s/base`, RayJobs with the KubeRay operator"
        if not is_absent(fault):
            missing = f"{server} knows no {resource}; RayJobs come with the KubeRay operator and its CRDs"
        return RunError(f"kubernetes: cannot {what}: {fault.text}; {missing}")
    if fault.retryable:
        return ServerAway(f"kubernetes: cannot {what}: {server} {_why_away(fault, identity)}")
    if _SPEAKS_TLS in fault.text:
        return RunError(f"kubernetes: {server} speaks TLS: write https:// instead into {identity.server}")
    if fault.status in (400, 422):
        return RunError(f"kubernetes rejects the request to {what}: {fault.text}")
    if fault.status == 0:
        return RunError(f"kubernetes: {fault.text}")
    return RunError(f"kubernetes: cannot {what}: {server} answered: {fault.text}")


def _forbidden(text: str, asked: ApiRequest, namespace: str, server: str, identity: Identity) -> RunError:
    """Return the error for a denial: by admission, of an anonymous caller, or because of a missing right."""
    what = f"{asked.verb} {asked.resource.full} in namespace {namespace}"
    if _is_admission(text):
        return RunError(f"kubernetes rejects the request to {what}: {text}; {_remedy(text)}")
    if 'User "system:anonymous"' in text:
        return RunError(f"kubernetes: {server} does not know this user: {_log_in(identity)} [{text}]")
    return Denied(
        f"kubernetes: you may not {what}; have a Role with that bound to you (k8s/base has one): "
        f"kubectl auth can-i {asked.verb} {asked.resource.full} -n {namespace} [{text}]"
    )


def _why_away(fault: ApiError, identity: Identity) -> str:
    if not fault.status:
        return f"does not answer: {fault.text}; see {identity.server}"
    return f"answered: {fault.text}" + (f"; {_remedy(fault.text)}" if "webhook" in fault.text else "")


def _is_admission(text: str) -> bool:
    return not _NO_RIGHT.search(text) and _ADMISSION.search(text) is not None


def _remedy(text: str) -> str:
    return next(
        remedy for sign, remedy in (*_REMEDIES, ("", "see the rules of the namespace")) if sign in text
    )


def _log_in(identity: Identity) -> str:
    user = f"user {identity.user} of " if identity.user else ""
    return f"{user}{identity.source}; renew its token or certificate"
