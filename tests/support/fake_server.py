"""The fake's server: a thread for each connection, which reads and writes what the fake holds."""

import json
import re
import socket
import ssl
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from multicsr.deploy.manifest_checks.check import check
from tests.conftest import SHARED
from tests.support.schemas import rejections

if TYPE_CHECKING:
    from tests.support.fake_kube import FakeKube

Tree = dict[str, Any]
NAMESPACE, TOKEN = "multicsr", "a-token-of-the-fake"
_PATH = re.compile(
    r"/(?:api/v1|apis/ray\.io/v1)/namespaces/(?P<namespace>[^/]+)/(?P<plural>[^/]+)"
    r"(?:/(?P<name>[^/]+)(?P<log>/log)?)?"
)
KINDS = {
    "rayjobs": ("ray.io/v1", "RayJob"),
    "rayclusters": ("ray.io/v1", "RayCluster"),
    "configmaps": ("v1", "ConfigMap"),
    "pods": ("v1", "Pod"),
    "events": ("v1", "Event"),
    "serviceaccounts": ("v1", "ServiceAccount"),
}
SUBMITTER = "ray-job-submitter"
"""The container whose log is the job's."""
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def manifest_problems(document: Tree, plural: str) -> list[str]:
    """What a strict server would not take."""
    version, kind = KINDS[plural]
    if (document.get("apiVersion"), document.get("kind")) != (version, kind):
        return [f"no {kind} of {version}"]
    name = document["metadata"].get("name", "")
    stub = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-config"}, "data": {}}
    found = check([document, stub] if plural == "rayjobs" else [document])
    if plural == "rayjobs" and SHARED.is_dir():
        found += rejections(SHARED, document)
    return found


class Server(ThreadingHTTPServer):
    """Serves a fake."""

    daemon_threads = True

    def __init__(self, fake: "FakeKube", tls: ssl.SSLContext | None) -> None:
        self.fake = fake
        super().__init__(("127.0.0.1", 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection after the client's last bytes: a reset would overtake a TLS alert."""
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            request.settimeout(1.0)
            while request.recv(65536):
                pass
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        """A client that breaks off, such as one that does not trust the certificate, is no news."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    server: "Server"
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    @property
    def fake(self) -> "FakeKube":
        return self.server.fake

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = f"{self.command} {self.path}"
        self.fake.requests.append(request)
        trouble = self.fake.trouble(request)
        if trouble and trouble.cut:
            self.close_connection = True
            return self.connection.close()
        if trouble and trouble.page:
            return self._raw(trouble.status, "text/html", trouble.page)
        if trouble and not trouble.done:
            return self._fail(trouble.status, trouble.message, trouble.headers, trouble.reason)
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.fake.tokens:
            return self._fail(401, "Unauthorized")
        found = _PATH.fullmatch(urlsplit(self.path).path)
        if found and time.monotonic() < self.fake.starts_until:
            return self._fail(
                403, f'{found["plural"]} is forbidden: User "me" cannot do that: RBAC: not ready'
            )
        if found is None or found["plural"] not in self.fake.kinds:
            return self._raw(404, "text/plain", "404 page not found\n")
        if found["namespace"] != NAMESPACE:
            return self._elsewhere(found)
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
            wanted = json.loads(body or b"{}").get("preconditions", {}).get("uid")
            if wanted not in (None, document["metadata"]["uid"]):
                return self._fail(409, f"Precondition failed: UID in precondition: {wanted}")
            self.fake.remove(plural, name)
        return self._send(200, document)

    def _elsewhere(self, found: "re.Match[str]") -> None:
        """Answer for a namespace that is not there: it can be listed, and holds nothing."""
        if self.command == "POST":
            return self._fail(404, f'namespaces "{found["namespace"]}" not found')
        if found["name"]:
            return self._fail(404, f'{found["plural"]} "{found["name"]}" not found')
        return self._send(200, {"items": [], "metadata": {}})

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
            and _has_fields(document, query.get("fieldSelector", ""))
            and all(
                key in (labels := document["metadata"].get("labels", {}))
                and (not equals or labels[key] == value)
                for key, equals, value in wanted
            )
        ]
        begin = int(query.get("continue", 0))
        end = begin + int(query.get("limit", len(items)))
        meta = {"continue": str(end)} if end < len(items) else {}
        self._send(200, {"items": items[begin:end], "metadata": meta})

    def _watch(self, query: dict[str, str]) -> None:
        name, at = query["fieldSelector"].partition("=")[2], int(query["resourceVersion"])
        left = self.fake.watch_ends_after.pop(0) if self.fake.watch_ends_after else 10**6
        self._begin_stream()
        if self.fake.gone_versions:
            self.fake.gone_versions = False
            status = {"kind": "Status", "code": 410, "message": "too old resource version"}
            self._line(json.dumps({"type": "ERROR", "object": status}))
            return self._end_stream()
        end = time.monotonic() + min(float(query["timeoutSeconds"]), self.fake.watch_lasts_s)
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
        names = [container["name"] for container in document["spec"]["containers"]]
        if len(names) > 1 and "container" not in query:
            choices = " ".join(names)
            return self._fail(
                400, f"a container name must be specified for pod {pod}, choose one of: [{choices}]"
            )
        if query.get("container", SUBMITTER) != SUBMITTER:
            return self._fail(400, f"container {query['container']} is not valid for pod {pod}")
        self._begin_stream()
        num_sent = 0
        while True:
            states = self.fake.objects["pods", pod]["status"]["containerStatuses"]
            over = not any("running" in each["state"] for each in states if each["name"] == SUBMITTER)
            for line in self.fake.logs[pod][num_sent:]:
                self._line(line)
            num_sent = len(self.fake.logs[pod])
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

    def _fail(
        self, status: int, message: str, headers: dict[str, str] | None = None, reason: str = ""
    ) -> None:
        rejected = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": status,
            "message": message,
        }
        self._send(status, {**rejected, "reason": reason or REASONS.get(status, "")}, headers)

    def _send(self, status: int, document: Tree, headers: dict[str, str] | None = None) -> None:
        self._raw(status, "application/json", json.dumps(document), headers)

    def _raw(self, status: int, kind: str, text: str, headers: dict[str, str] | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _has_fields(document: Tree, selector: str) -> bool:
    """Tell as a server does, for the fields that it can select events by."""
    for part in filter(None, selector.split(",")):
        path, _, value = part.partition("=")
        found: Any = document
        for key in path.split("."):
            found = found.get(key, {})
        if found != value:
            return False
    return True
