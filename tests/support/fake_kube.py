"""A fake of the Kubernetes API server, for the calls that `multicsr submit` makes; no operator behind it.

Objects are kept by kind and name and have resource versions. What is created is checked as strictly as this
project can, by its own rules and, where the shared data lie, KubeRay's schema: see `manifest_problems` in
fake_server.py. Refusals are Status objects with the reasons and words of a real server. What admission
decides, which events there are and when the server starts anew, the test says.
"""

import json
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from tests.support.fake_server import KINDS, NAMESPACE, SUBMITTER, TOKEN, Server, Tree


@dataclass
class Trouble:
    """What happens to requests instead of an answer."""

    method: str
    path: str
    """A regular expression, found somewhere in the path and query."""
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "trouble"
    times: int = 1
    done: bool = False
    """The server does the work all the same."""
    page: str = ""
    """An HTML page of a proxy, in place of a Status."""
    reason: str = ""
    """Of the Status, where it is not the usual one of its code."""
    cut: bool = False
    """The connection is closed without an answer."""


class FakeKube:
    """Serves on a free port from `with` to its end."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.objects: dict[tuple[str, str], Tree] = {}
        self.kinds = set(KINDS)
        """Plurals that the server knows; without `rayjobs` the operator's CRDs are not installed."""
        self.starts_until = 0.0
        """Until then (time.monotonic) everybody lacks every right, as while the server reads its roles."""
        self.tokens = {TOKEN}
        """Whoever shows another one is unknown."""
        self.logs: dict[str, list[str]] = {}
        """Of pods: lines, each `TIME TEXT`."""
        self.requests: list[str] = []
        """METHOD path?query."""
        self.troubles: list[Trouble] = []
        self.watch_ends_after: list[int] = []
        """For each coming watch: events after which the connection is cut."""
        self.watch_lasts_s = float("inf")
        """Seconds after which a proxy ends a watch in good order, whatever was asked for."""
        self.gone_versions = False
        """Every watch from an old version is answered with 410 Gone."""
        self.on_create: Callable[[str], None] = lambda name: None
        self.changed = threading.Condition()
        self._events: list[tuple[int, Tree]] = []
        self._version = 100

    def __enter__(self) -> Self:
        self._server = Server(self, self._tls)
        scheme = "https" if self._tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        for account in ("multicsr-head", "multicsr-worker"):
            self.put("serviceaccounts", {"metadata": {"name": account}})
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self) -> Tree:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}],
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": TOKEN}}],
        }

    def put(self, plural: str, document: Tree, kind: str = "ADDED") -> Tree:
        """As an operator or a controller changes objects."""
        with self.changed:
            self._version += 1
            meta = document.setdefault("metadata", {})
            meta |= {"resourceVersion": str(self._version), "namespace": NAMESPACE}
            meta.setdefault("uid", f"uid-{self._version}")
            meta.setdefault("creationTimestamp", f"2026-11-25T00:00:{self._version % 60:02d}Z")
            self.objects[plural, meta["name"]] = document
            if plural == "rayjobs":
                self._events.append(
                    (self._version, {"type": kind, "object": json.loads(json.dumps(document))})
                )
            self.changed.notify_all()
        return document

    def submitted(self, name: str, job: str) -> None:
        """Put the RayJob of a job of this project, as `multicsr submit` does."""
        labels = {
            "multicsr.io/run": name,
            "multicsr.io/job": job,
            "app.kubernetes.io/part-of": "multicsr",
        }
        self.put("rayjobs", {"metadata": {"name": name, "labels": labels, "annotations": {}}})

    def status(self, name: str, deployment: str, job: str = "", **more: str) -> None:
        """What the operator writes into a RayJob."""
        document = self.objects["rayjobs", name]
        document["status"] = {"jobDeploymentStatus": deployment, "jobStatus": job, "jobId": name, **more}
        self.put("rayjobs", document, "MODIFIED")

    def remove(self, plural: str, name: str) -> None:
        """With what it owns."""
        with self.changed:
            document = self.objects.pop((plural, name))
            self._version += 1
            document["metadata"]["resourceVersion"] = str(self._version)
            if plural == "rayjobs":
                self._events.append((self._version, {"type": "DELETED", "object": document}))
            for key, other in list(self.objects.items()):
                owners = other["metadata"].get("ownerReferences", [])
                if any(owner["uid"] == document["metadata"]["uid"] for owner in owners):
                    del self.objects[key]
            self.changed.notify_all()

    def pod(self, job: str, name: str, phase: str, *lines: str, sidecars: tuple[str, ...] = ()) -> None:
        """Put a pod of the operator's batch Job; `sidecars` never end.

        They stand before its own container, or around it where they name it.
        """
        self.logs.setdefault(name, []).extend(lines)
        running = {"state": {"running": {}}}
        ours = running if phase == "Running" else {"state": {"terminated": {"exitCode": 0}}}
        containers = sidecars if SUBMITTER in sidecars else (*sidecars, SUBMITTER)
        fresh = {
            "metadata": {"name": name, "labels": {"job-name": job}},
            "spec": {"containers": [{"name": each} for each in containers]},
        }
        pod = self.objects.get(("pods", name), fresh)
        names = [container["name"] for container in pod["spec"]["containers"]]
        states = [{"name": each, **(ours if each == SUBMITTER else running)} for each in names]
        of_all = "Running" if len(names) > 1 and phase == "Succeeded" else phase
        self.put("pods", {**pod, "status": {"phase": of_all, "containerStatuses": states}})

    def warn(
        self, kind: str, name: str, reason: str, message: str, type: str = "Warning", **more: str
    ) -> None:
        """Write a core event, as controllers do."""
        self.put(
            "events",
            {
                "metadata": {"name": f"{name}.{len(self.objects):x}"},
                "involvedObject": {"kind": kind, "name": name, "namespace": NAMESPACE},
                "type": type,
                "reason": reason,
                "message": message,
                **more,
            },
        )

    def trouble(self, request: str) -> Trouble | None:
        method, _, path = request.partition(" ")
        for one in self.troubles:
            if one.times and one.method == method and re.search(one.path, path):
                one.times -= 1
                return one
        return None

    def events(self, name: str, version: int) -> list[Tree]:
        return [
            event
            for at, event in self._events
            if at > version and event["object"]["metadata"]["name"] == name
        ]
