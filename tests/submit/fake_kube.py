"""A fake of the Kubernetes API server, for the calls that `multicsr submit` makes; no operator behind it.

Objects are kept by kind and name and have resource versions. What is created is checked as strictly as this
project can, by its own rules and, where the shared data lie, KubeRay's schema: see `manifest_problems` in
fake_server.py. What a real server adds (defaults, admission, events) is not here.
"""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from tests.submit.fake_server import NAMESPACE, TOKEN, Server, Tree


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


class FakeKube:
    """Serves on a free port from `with` to its end."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Tree] = {}
        self.logs: dict[str, list[str]] = {}
        """Of pods: lines, each `TIME TEXT`."""
        self.requests: list[str] = []
        """METHOD path?query."""
        self.troubles: list[Trouble] = []
        self.watch_ends_after: list[int] = []
        """For each coming watch: events after which the connection is cut."""
        self.gone_versions = False
        """Every watch from an old version is answered with 410 Gone."""
        self.on_create: Callable[[str], None] = lambda name: None
        self.changed = threading.Condition()
        self._events: list[tuple[int, Tree]] = []
        self._version = 100

    def __enter__(self) -> Self:
        self._server = Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
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

    def pod(self, job: str, name: str, phase: str, *lines: str) -> None:
        """Of the operator's batch Job."""
        self.logs.setdefault(name, []).extend(lines)
        pod = self.objects.get(("pods", name), {"metadata": {"name": name, "labels": {"job-name": job}}})
        self.put("pods", {**pod, "status": {"phase": phase}})

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
