"""The Kubernetes API as far as jobs need it: patient, typed, and with remedies in its errors."""

from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from multicsr.errors import RunError
from multicsr.submit.kube_door import Door, Query
from multicsr.submit.kube_objects import (
    CONFIGMAPS,
    PODS,
    RAYJOBS,
    Event,
    Meta,
    Pod,
    Pods,
    RayJob,
    RayJobs,
    Resource,
    Thing,
)
from multicsr.submit.retry import Fault, patiently

M = TypeVar("M", bound=BaseModel)
_WATCH_S, _SILENCE_S = 45, 60.0
"""A watch is begun anew so often; a connection that says nothing for longer is dead."""
ABSENT, TAKEN, GONE = 404, 409, 410


class KubeApi:
    """One namespace. Raises RunError; where a caller must tell cases apart, Fault."""

    def __init__(self, door: Door, namespace: str) -> None:
        self._door, self.namespace = door, namespace

    def ray_job(self, name: str) -> RayJob | None:
        """None: there is none."""
        try:
            return _read(RayJob, self._ask("get", RAYJOBS, name))
        except Fault as fault:
            if fault.status == ABSENT:
                return None
            raise self._told(fault, "get", RAYJOBS) from fault

    def ray_jobs(self, selector: str) -> list[RayJob]:
        query = [("labelSelector", selector)]
        try:
            return _read(RayJobs, self._ask("list", RAYJOBS, query=query)).items
        except Fault as fault:
            raise self._told(fault, "list", RAYJOBS) from fault

    def pods(self, selector: str) -> list[Pod]:
        try:
            return _read(Pods, self._ask("list", PODS, query=[("labelSelector", selector)])).items
        except Fault as fault:
            raise self._told(fault, "list", PODS) from fault

    def create(self, resource: Resource, document: object, *, dry: bool = False) -> Meta | None:
        """Make an object; None: its name is taken. `dry`: have the server check it all, and keep nothing."""
        query = [("dryRun", "All")] if dry else []
        try:
            made = self._ask("create", resource, query=query, body=document)
        except Fault as fault:
            if fault.status == TAKEN:
                return None
            raise self._told(fault, "create", resource) from fault
        return _read(Thing, made).metadata

    def owner_of(self, config_map: str) -> str | None:
        """uid of the object that a ConfigMap goes with; None: it has none, or is not there."""
        try:
            owners = _read(Thing, self._ask("get", CONFIGMAPS, config_map)).metadata.ownerReferences
        except Fault as fault:
            if fault.status == ABSENT:
                return None
            raise self._told(fault, "get", CONFIGMAPS) from fault
        return owners[0].uid if owners else None

    def delete(self, resource: Resource, name: str) -> None:
        """It need not exist; what it owns goes with it."""
        try:
            self._ask("delete", resource, name, body={"propagationPolicy": "Background"})
        except Fault as fault:
            if fault.status != ABSENT:
                raise self._told(fault, "delete", resource) from fault

    def watch(self, job: RayJob) -> Iterator[RayJob | None]:
        """The job after every change since; None: it was deleted. Ends after a while.

        Raises:
            Fault: the connection broke, or the version is too old (410): read the job again.
        """
        query = [
            ("watch", "1"),
            ("fieldSelector", f"metadata.name={job.metadata.name}"),
            ("resourceVersion", job.metadata.resourceVersion),
            ("timeoutSeconds", str(_WATCH_S)),
        ]
        try:
            for line in self._door.lines(self._path(RAYJOBS), query, _SILENCE_S):
                event = _parsed(Event, line)
                if event.type == "ERROR":
                    raise Fault(int(str(event.object.get("code", 0))), str(event.object.get("message", "")))
                yield None if event.type == "DELETED" else _read(RayJob, event.object)
        except Fault as fault:
            if fault.passing or fault.status == GONE:
                raise
            raise self._told(fault, "watch", RAYJOBS) from fault

    def log(self, pod: str, *, follow: bool) -> Iterator[str]:
        """Lines of a pod's log from its beginning, each with its time before it.

        Raises:
            Fault: the connection broke, or there is no log yet.
        """
        query = [("follow", str(follow).lower()), ("timestamps", "true")]
        try:
            yield from self._door.lines(f"{self._path(PODS, pod)}/log", query, _SILENCE_S)
        except Fault as fault:
            if fault.status in (401, 403):
                raise self._told(fault, "get", Resource("", "pods/log")) from fault
            raise

    def _ask(
        self, verb: str, resource: Resource, name: str = "", query: Query = (), body: object = None
    ) -> object:
        method = {"create": "POST", "delete": "DELETE"}.get(verb, "GET")
        path = self._path(resource, name)
        return patiently(lambda: self._door.ask(method, path, query, body))

    def _path(self, resource: Resource, name: str = "") -> str:
        path = f"{resource.root}/namespaces/{self.namespace}/{resource.plural}"
        return f"{path}/{name}" if name else path

    def _told(self, fault: Fault, verb: str, resource: Resource) -> RunError:
        what = f"{verb} {resource.full} in namespace {self.namespace}"
        if fault.status == 403:
            return RunError(
                f"kubernetes: you may not {what}; have a Role with that bound to you (k8s/base has one): "
                f"kubectl auth can-i {verb} {resource.full} -n {self.namespace} [{fault.text}]"
            )
        if fault.status == 401:
            return RunError(f"kubernetes: {self._door.server} does not accept your credentials; log in again")
        if fault.status == ABSENT:
            return RunError(
                f"kubernetes: cannot {what}: {fault.text}; a namespace comes with "
                "`kubectl apply -k k8s/base`, RayJobs with the KubeRay operator"
            )
        if fault.status in (400, 422):
            return RunError(f"kubernetes refuses to {what}: {fault.text}")
        return RunError(f"kubernetes: cannot {what}: {self._door.server} says: {fault.text}")


def _read(kind: type[M], found: object) -> M:
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise RunError(f"kubernetes: an answer is no {kind.__name__}: {error.errors()[0]['msg']}") from error


def _parsed(kind: type[M], line: str) -> M:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise Fault(0, "a watch that breaks off in a line") from error
