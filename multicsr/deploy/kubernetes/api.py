"""The part of the Kubernetes API that jobs need, with retries, types, and remedies in its errors."""

import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from multicsr.deploy.kubernetes.client import KubernetesClient, Query
from multicsr.deploy.kubernetes.errors import (
    GONE,
    TAKEN,
    UNAUTHORISED,
    ApiRequest,
    is_absent,
    is_denied,
    is_taken,
    translate,
)
from multicsr.deploy.kubernetes.objects import (
    CONFIGMAPS,
    EVENTS,
    PODS,
    RAYCLUSTERS,
    RAYJOBS,
    SERVICEACCOUNTS,
    Change,
    Event,
    Events,
    Meta,
    Pod,
    Pods,
    RayCluster,
    RayJob,
    RayJobs,
    Resource,
    Thing,
)
from multicsr.deploy.submit.retry import ApiError, with_retries
from multicsr.errors import ConfigError, RunError

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
_WATCH_S, _SILENCE_S = 45, 60.0
"""Duration of a watch before it is started again, and silence after which a connection counts as dead."""
_DENIED_S, _DENIED_POLL_S = 30.0, 1.0
"""Time for which a denial is in doubt, and the pause between tries.

A starting API server denies everything until it has read its roles, which takes some seconds.
"""
_NAMESPACE = re.compile(r"(?!.{64})[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_NAME = re.compile(r"(?!.{254})[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
"""Names that Kubernetes accepts, at most 63 characters for a namespace and 253 for an object.

Other text in the path of a request would address something else.
"""
_EVENTS, _MOST_PARTS = 500, 20
"""Number of events of a namespace in one request, and the largest number of requests.

The newest events are not first, so all of them have to be read. Kubernetes deletes events after an hour.
"""


class KubeApi:
    """Objects of one namespace.

    Raises:
        RunError: from every method, with the problem and the remedy in one line.
        ApiError: instead of it, from the methods whose callers must distinguish the cases.
    """

    def __init__(self, client: KubernetesClient, namespace: str) -> None:
        """Use a connection for one namespace.

        Raises:
            ConfigError: the name is not valid for a namespace.
        """
        if not _NAMESPACE.fullmatch(namespace):
            raise ConfigError(
                f"--namespace {namespace}: write at most 63 lower-case letters, digits and hyphens, a letter "
                "or digit at both ends"
            )
        self._client, self.namespace = client, namespace
        self._allowed: set[ApiRequest] = set()
        self._harmless: Callable[[], object] | None = None
        """The last read request that was allowed.

        Repeated after a denial, it distinguishes a starting server from a missing right.
        """

    def ray_job(self, name: str) -> RayJob | None:
        """Return the RayJob of this name, or None if there is none."""
        return self._read_one(RayJob, RAYJOBS, name)

    def ray_jobs(self, selector: str) -> list[RayJob]:
        """Return the RayJobs that a label selector matches."""
        return self._list(RayJobs, RAYJOBS, ("labelSelector", selector)).items

    def ray_cluster(self, name: str) -> RayCluster | None:
        """Return the RayCluster of this name, or None if there is none."""
        return self._read_one(RayCluster, RAYCLUSTERS, name)

    def pods(self, selector: str) -> list[Pod]:
        """Return the pods that a label selector matches."""
        return self._list(Pods, PODS, ("labelSelector", selector)).items

    def warnings(self) -> list[Event]:
        """Return the events of the namespace with type Warning."""
        query = [("fieldSelector", "type=Warning"), ("limit", str(_EVENTS))]
        found: list[Event] = []
        more = ""
        for _ in range(_MOST_PARTS):
            part = self._list(Events, EVENTS, *query, *([("continue", more)] if more else []))
            found += (event for event in part.items if event.type == "Warning")
            if not (more := part.metadata.more):
                break
        return found

    def has_account(self, name: str) -> bool:
        """Return whether there is a service account of this name."""
        return self._read_one(Thing, SERVICEACCOUNTS, name) is not None

    def config_map(self, name: str) -> Meta | None:
        """Return the metadata of the ConfigMap of this name, or None if there is none."""
        found = self._read_one(Thing, CONFIGMAPS, name)
        return found.metadata if found else None

    def create(self, resource: Resource, document: object, *, dry: bool = False) -> Meta | None:
        """Create an object.

        Args:
            document: the object as Kubernetes expects it in JSON.
            dry: let the server check the object without creating it.

        Returns:
            The metadata of the object, or None if its name is taken.
        """
        query = [("dryRun", "All")] if dry else []
        try:
            made = self._ask("create", resource, query=query, body=document)
        except ApiError as fault:
            if is_taken(fault):
                return None
            raise self._translated(fault, "create", resource) from fault
        return _read(Thing, made).metadata

    def delete(self, resource: Resource, name: str, uid: str) -> None:
        """Delete an object and the objects that it owns.

        Do nothing if there is no such object, or if another object, with another uid, has this name.
        """
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            self._ask("delete", resource, name, body=options)
        except ApiError as fault:
            if not is_absent(fault) and fault.status != TAKEN:
                raise self._translated(fault, "delete", resource) from fault

    def watch(self, job: RayJob) -> Iterator[RayJob | None]:
        """Yield the job after every change since it was read, and None if it was deleted. End after 45 s.

        Raises:
            ApiError: the connection broke, or the version of `job` is too old (410); read the job again.
            RunError: the watch is not allowed, or failed permanently.
        """
        query = [
            ("watch", "1"),
            ("fieldSelector", f"metadata.name={job.metadata.name}"),
            ("resourceVersion", job.metadata.resourceVersion),
            ("timeoutSeconds", str(_WATCH_S)),
        ]
        path = self._path(RAYJOBS)
        try:
            stream = self._allowed_in_time(
                lambda: self._client.stream(path, query, _SILENCE_S), ApiRequest("watch", RAYJOBS)
            )
            for line in stream:
                event = _parsed(Change, line)
                if event.type == "ERROR":
                    code = event.object.get("code")
                    raise ApiError(code if isinstance(code, int) else 0, str(event.object.get("message", "")))
                if event.type in ("ADDED", "MODIFIED", "DELETED"):
                    yield None if event.type == "DELETED" else _read(RayJob, event.object)
        except ApiError as fault:
            if fault.retryable or fault.status == GONE:
                raise
            raise self._translated(fault, "watch", RAYJOBS) from fault

    def log(self, pod: str, container: str, *, follow: bool, since: str = "") -> Iterator[str]:
        """Yield the lines of a container's log, each preceded by its time.

        Args:
            container: name of the container; empty for the only one of the pod.
            follow: continue with new lines until the container ends.
            since: time of a line, from which on lines are read; earlier lines of the same second come again.
                Empty: from the beginning.

        Raises:
            ApiError: the connection broke, or there is no log yet.
            RunError: reading the log is not allowed, or failed permanently.
        """
        query = [("follow", str(follow).lower()), ("timestamps", "true")]
        query += [("container", container)] if container else []
        query += [("sinceTime", since)] if since else []
        resource, path = Resource("", "pods/log"), f"{self._path(PODS, pod)}/log"
        try:
            yield from self._allowed_in_time(
                lambda: self._client.stream(path, query, _SILENCE_S), ApiRequest("get", resource)
            )
        except ApiError as fault:
            if is_denied(fault) or fault.final:
                raise self._translated(fault, "get", resource) from fault
            raise

    def _read_one(self, kind: type[M], resource: Resource, name: str) -> M | None:
        if not _NAME.fullmatch(name):
            return None
        try:
            return _read(kind, self._ask("get", resource, name))
        except ApiError as fault:
            if is_absent(fault):
                return None
            raise self._translated(fault, "get", resource) from fault

    def _list(self, kind: type[M], resource: Resource, *query: tuple[str, str]) -> M:
        try:
            return _read(kind, self._ask("list", resource, query=query))
        except ApiError as fault:
            raise self._translated(fault, "list", resource) from fault

    def _ask(
        self, verb: str, resource: Resource, name: str = "", query: Query = (), body: object = None
    ) -> object:
        method = {"create": "POST", "delete": "DELETE"}.get(verb, "GET")
        path, asked = self._path(resource, name), ApiRequest(verb, resource)
        answer = self._allowed_in_time(
            lambda: with_retries(lambda: self._client.ask(method, path, query, body)), asked
        )
        if method == "GET":
            self._harmless = lambda: self._client.ask(method, path, query)
        return answer

    def _allowed_in_time(self, call: Callable[[], T], asked: ApiRequest) -> T:
        """Return the result of `call`; while a denial may be temporary, repeat the call for up to 30 s."""
        end, denials = time.monotonic() + _DENIED_S, 0
        while True:
            try:
                answer = call()
            except ApiError as fault:
                if not is_denied(fault) or time.monotonic() > end:
                    raise
                denials = 0 if self._in_doubt(asked) else denials + 1
                if denials > self._doubted():
                    raise
                if fault.status == UNAUTHORISED:
                    self._client.renew()
                time.sleep(_DENIED_POLL_S)
            else:
                self._allowed.add(asked)
                return answer

    def _doubted(self) -> int:
        """Return the number of successive denials that are doubted although another request is allowed.

        The server may have become ready between the two requests.
        """
        return 0 if self._harmless is None else 1

    def _in_doubt(self, asked: ApiRequest) -> bool:
        """Return whether a denial may be temporary.

        It may be if the same request was allowed before, or if another request that was allowed before is
        denied now, or fails with a temporary fault.
        """
        if asked in self._allowed:
            return True
        if self._harmless is None:
            return False
        try:
            self._harmless()
        except ApiError as fault:
            return is_denied(fault) or fault.retryable
        return False

    def _path(self, resource: Resource, name: str = "") -> str:
        path = f"{resource.root}/namespaces/{self.namespace}/{resource.plural}"
        return f"{path}/{name}" if name else path

    def _translated(self, fault: ApiError, verb: str, resource: Resource) -> RunError:
        return translate(
            fault, ApiRequest(verb, resource), self.namespace, self._client.server, self._client.identity
        )


def _read(kind: type[M], found: object) -> M:
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise RunError(f"kubernetes: an answer is no {kind.__name__}: {error.errors()[0]['msg']}") from error


def _parsed(kind: type[M], line: str) -> M:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise ApiError(0, "a watch that breaks off in a line") from error
