"""What an API server refuses is told as what it is: the words are those of real servers."""

import json

import pytest

from multicsr.deploy.kubernetes.errors import (
    ApiRequest,
    Denied,
    ServerAway,
    is_absent,
    is_denied,
    is_taken,
    translate,
)
from multicsr.deploy.kubernetes.objects import RAYJOBS
from multicsr.deploy.kubernetes.transport import Identity, api_error_of

IDENTITY = Identity("kubeconfig /k", "prod", "alice")
JOB = 'rayjobs.ray.io "night" is forbidden: '
RIGHT = (
    f'{JOB}User "alice" cannot create resource "rayjobs" in API group "ray.io" in the namespace "multicsr"'
)


def translated(status: int, message: str, reason: str = "Forbidden", verb: str = "create"):
    body = f'{{"kind": "Status", "message": {as_json(message)}, "reason": "{reason}", "code": {status}}}'
    fault = api_error_of(status, {}, body.encode(), "")
    return fault, translate(fault, ApiRequest(verb, RAYJOBS), "multicsr", "https://h", IDENTITY)


def as_json(text: str) -> str:
    return json.dumps(text)


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        (f"{JOB}exceeded quota: jobs, requested: count/rayjobs.ray.io=1, used: 4", "ResourceQuota raised"),
        (f"{JOB}failed quota: compute: must specify limits.cpu for: ray-head", "requests and limits"),
        ('admission webhook "validate.kyverno.svc-fail" denied the request: policy RayJob/x/y', "overlay"),
        (f"{JOB}ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no owner", "who made it"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot', "Pod Security"),
        (f"{JOB}unable to create new content in namespace x because it is being terminated", "wait until"),
        ('pods "x" is forbidden: error looking up service account multicsr/y: not found', "k8s/base"),
        ('admission webhook "x" denied the request: User "alice" cannot submit on Sundays', "that webhook"),
        (f"{JOB}ValidatingAdmissionPolicy 'p' denied request: User \"alice\" cannot submit", "who made it"),
        (f"{JOB}maximum cpu usage per Container is 2, but limit is 4", "admission rule"),
    ],
)
def test_a_rejection_by_admission_is_not_a_missing_role(message, remedy):
    fault, error = translated(403, message)
    assert not is_denied(fault), "it is not asked again"
    assert str(error).startswith(
        "kubernetes rejects the request to create rayjobs.ray.io in namespace multicsr: "
    )
    assert message in str(error)
    assert remedy in str(error)
    assert "Role" not in str(error)


@pytest.mark.parametrize("message", [RIGHT, f"{RIGHT}: RBAC: role.rbac.authorization.k8s.io not found", "no"])
def test_a_missing_right_is_reported_with_the_role(message):
    fault, error = translated(403, message)
    assert is_denied(fault)
    assert isinstance(error, Denied)
    assert "have a Role with that bound to you" in str(error)
    assert "kubectl auth can-i create rayjobs.ray.io -n multicsr" in str(error)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 418, 422])
def test_a_webhook_s_rejection_is_reported_as_such_whatever_status_it_chose(status):
    message = 'admission webhook "gate.example" denied the request: there is a freeze'
    fault, error = translated(status, message, {404: "NotFound", 409: "AlreadyExists"}.get(status, ""))
    for reading in (is_denied, is_absent, is_taken):
        assert not reading(fault)
    assert str(error).startswith(
        f"kubernetes rejects the request to create rayjobs.ray.io in namespace multicsr: {message}"
    )
    assert "ask who runs that webhook" in str(error)


def test_missing_credentials_are_reported():
    _, error = translated(403, RIGHT.replace("alice", "system:anonymous"))
    assert "does not know this user" in str(error)
    assert "user alice of kubeconfig /k" in str(error)


@pytest.mark.parametrize(
    ("status", "reason", "message", "part"),
    [
        (422, "Invalid", "spec.backoffLimit: Invalid value", "kubernetes rejects the request to create"),
        (
            400,
            "BadRequest",
            "strict decoding error: unknown field",
            "kubernetes rejects the request to create",
        ),
        (401, "Unauthorized", "Unauthorized", "does not accept your credentials; log in again (user alice"),
        (404, "NotFound", 'namespaces "x" not found', "kubectl apply -k k8s/base"),
        (413, "RequestEntityTooLarge", "limit is 3145728", "answered: limit is 3145728"),
        (
            405,
            "MethodNotAllowed",
            "the server does not allow this method",
            "answered: the server does not allow",
        ),
    ],
)
def test_what_lasts_is_reported_at_once(status, reason, message, part):
    fault, error = translated(status, message, reason)
    assert not fault.retryable
    assert part in str(error)


def test_a_webhook_that_does_not_answer_is_named_and_may_pass():
    message = 'Internal error occurred: failed calling webhook "vrayjob.kb.io": no endpoints available'
    fault, error = translated(500, message, "InternalError")
    assert fault.retryable
    assert isinstance(error, ServerAway)
    assert "the program behind that webhook does not answer" in str(error)


def test_a_kind_that_the_server_does_not_know_is_not_a_missing_object():
    missing, _ = translated(404, 'rayjobs.ray.io "night" not found', "NotFound", "get")
    assert is_absent(missing)
    words = "the server could not find the requested resource"
    for body in ("404 page not found\n", f'{{"kind": "Status", "message": "{words}"}}'):
        fault = api_error_of(404, {}, body.encode(), "Not Found")
        assert not is_absent(fault)
        error = translate(fault, ApiRequest("get", RAYJOBS), "multicsr", "https://h", IDENTITY)
        assert "knows no rayjobs.ray.io; RayJobs come with the KubeRay operator" in str(error)


def test_pages_of_proxies_and_controls_are_one_short_line():
    page = b"<html><head>\n<title>502 Bad\nGateway</title></head><body>" + b"x" * 9000
    assert api_error_of(502, {}, page, "Bad Gateway").text == "502 Bad Gateway"
    assert api_error_of(503, {}, b"", "Service Unavailable").text == "503 Service Unavailable"
    assert len(api_error_of(503, {}, b"y" * 9000, "").text) < 700
    text = api_error_of(
        403, {}, b'{"kind":"Status","message":"a\\u001b]0;title\\u0007\\nb \\u202e c"}', ""
    ).text
    assert text.isprintable()


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("", None), ("soon", None), ("-1", None), ("\u00b2", None)]
)
def test_only_a_number_of_seconds_is_waited_for(value, seconds):
    assert api_error_of(429, {"Retry-After": value}, b"", "").retry_after_s == seconds


def test_an_answer_that_is_nested_without_end_is_a_rejection():
    assert api_error_of(500, {}, b"[" * 200_000, "x").text.startswith("[[[")


def test_a_redirect_is_reported_with_its_goal():
    fault = api_error_of(302, {"Location": "https://login.example/"}, b"", "Found")
    assert not fault.retryable
    assert "redirect to https://login.example/" in fault.text
