"""A fake of the Kubernetes API server, for the calls that `multicsr submit` makes; no operator behind it.

Objects are kept by kind and name and have resource versions. What is created is checked as strictly as this
project can, by its own rules and, where the shared data lie, KubeRay's schema: see `manifest_problems`. What
a real server adds (defaults, admission, events) is not here.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from multicsr.kube.rules import check
from tests.conftest import SHARED
from tests.k8s.schemas import refusals

Tree = dict[str, Any]
NAMESPACE, TOKEN = "multicsr", "a-token-of-the-fake"
_PATH = re.compile(
    r"/(?:api/v1|apis/ray\.io/v1)/namespaces/(?P<namespace>[^/]+)/(?P<plural>[^/]+)"
    r"(?:/(?P<name>[^/]+)(?P<log>/log)?)?"
)
_KINDS = {"rayjobs": ("ray.io/v1", "RayJob"), "configmaps": ("v1", "ConfigMap"), "pods": ("v1", "Pod")}


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


def manifest_problems(document: Tree, plural: str) -> list[str]:
    """What a strict server would not take."""
    version, kind = _KINDS[plural]
    if (document.get("apiVersion"), document.get("kind")) != (version, kind):
        return [f"no {kind} of {version}"]
    name = document["metadata"].get("name", "")
    stub = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-config"}, "data": {}}
    found = check([document, stub] if plural == "rayjobs" else [document])
    if plural == "rayjobs" and SHARED.is_dir():
        found += refusals(SHARED, document)
    return found


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


class Server(ThreadingHTTPServer):
    """Serves a fake."""

    daemon_threads = True

    def __init__(self, fake: FakeKube) -> None:
        self.fake = fake
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    server: "Server"
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    @property
    def fake(self) -> FakeKube:
        return self.server.fake

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = f"{self.command} {self.path}"
        self.fake.requests.append(request)
        trouble = self.fake.trouble(request)
        if trouble and not trouble.done:
            return self._fail(trouble.status, trouble.message, trouble.headers)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._fail(401, "Unauthorized")
        found = _PATH.fullmatch(urlsplit(self.path).path)
        if found is None or found["plural"] not in _KINDS:
            return self._fail(404, "the server could not find the requested resource")
        if found["namespace"] != NAMESPACE:
            return self._fail(404, f'namespaces "{found["namespace"]}" not found')
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        with suppress(BrokenPipeError, ConnectionResetError):
            if trouble:
                self._silently(found, query, body)
                return self._fail(trouble.status, trouble.message, trouble.headers)
            return self._do(found, query, body)
        return None

    do_GET = do_POST = do_DELETE = do_any

    def _do(self, found: "re.Match[str]", query: dict[str, str], body: bytes) -> None:
        plural, name = found["plural"], found["name"]
        if self.command == "POST":
            return self._create(plural, query, body)
        if found["log"]:
            return self._log(name, query)
        if "watch" in query:
            return self._watch(query)
        if name is None:
            return self._list(plural, query)
        document = self.fake.objects.get((plural, name))
        if document is None:
            return self._fail(404, f'{plural} "{name}" not found')
        if self.command == "DELETE":
            self.fake.remove(plural, name)
        return self._send(200, document)

    def _silently(self, found: "re.Match[str]", query: dict[str, str], body: bytes) -> None:
        """Do the work; the answer is lost."""
        keep, self._send = self._send, lambda *_: None  # type: ignore[method-assign]
        self._do(found, query, body)
        self._send = keep  # type: ignore[method-assign]

    def _create(self, plural: str, query: dict[str, str], body: bytes) -> None:
        document = json.loads(body)
        name = document["metadata"]["name"]
        if problems := manifest_problems(document, plural):
            return self._fail(422, f"{plural} {name!r} is invalid: {problems[0]}")
        if (plural, name) in self.fake.objects:
            return self._fail(409, f'{plural} "{name}" already exists')
        if query.get("dryRun") != "All":
            self.fake.put(plural, document)
            if plural == "rayjobs":
                self.fake.on_create(name)
        return self._send(201, document)

    def _list(self, plural: str, query: dict[str, str]) -> None:
        wanted = [part.partition("=") for part in query.get("labelSelector", "").split(",") if part]
        items = [
            document
            for (kind, _), document in sorted(self.fake.objects.items())
            if kind == plural
            and all(
                key in (labels := document["metadata"].get("labels", {}))
                and (not equals or labels[key] == value)
                for key, equals, value in wanted
            )
        ]
        self._send(200, {"items": items, "metadata": {}})

    def _watch(self, query: dict[str, str]) -> None:
        name, at = query["fieldSelector"].partition("=")[2], int(query["resourceVersion"])
        left = self.fake.watch_ends_after.pop(0) if self.fake.watch_ends_after else 10**6
        self._begin_stream()
        if self.fake.gone_versions:
            self.fake.gone_versions = False
            status = {"kind": "Status", "code": 410, "message": "too old resource version"}
            self._line(json.dumps({"type": "ERROR", "object": status}))
            return self._end_stream()
        end = time.monotonic() + float(query["timeoutSeconds"])
        while time.monotonic() < end:
            for event in self.fake.events(name, at):
                if left == 0:  # cut within a line
                    self.wfile.write(b"20\r\n" + b'{"type": "MODI')
                    self.close_connection = True
                    self.connection.close()
                    return None
                at = int(event["object"]["metadata"]["resourceVersion"])
                self._line(json.dumps(event))
                left -= 1
            with self.fake.changed:
                self.fake.changed.wait(0.05)
        return self._end_stream()

    def _log(self, pod: str, query: dict[str, str]) -> None:
        document = self.fake.objects.get(("pods", pod))
        if document is None:
            return self._fail(404, f'pods "{pod}" not found')
        self._begin_stream()
        told = 0
        while True:
            over = self.fake.objects["pods", pod]["status"]["phase"] != "Running"
            for line in self.fake.logs[pod][told:]:
                self._line(line)
            told = len(self.fake.logs[pod])
            if over or query.get("follow") != "true":
                return self._end_stream()
            time.sleep(0.02)

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _line(self, text: str) -> None:
        data = text.encode() + b"\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def _fail(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, {"kind": "Status", "code": status, "message": message}, headers)

    def _send(self, status: int, document: Tree, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
