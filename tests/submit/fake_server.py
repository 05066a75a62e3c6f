"""The fake's server: a thread for each connection, which reads and writes what the fake holds."""

import json
import re
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from multicsr.kube.rules import check
from tests.conftest import SHARED
from tests.k8s.schemas import refusals

if TYPE_CHECKING:
    from tests.submit.fake_kube import FakeKube

Tree = dict[str, Any]
NAMESPACE, TOKEN = "multicsr", "a-token-of-the-fake"
_PATH = re.compile(
    r"/(?:api/v1|apis/ray\.io/v1)/namespaces/(?P<namespace>[^/]+)/(?P<plural>[^/]+)"
    r"(?:/(?P<name>[^/]+)(?P<log>/log)?)?"
)
KINDS = {"rayjobs": ("ray.io/v1", "RayJob"), "configmaps": ("v1", "ConfigMap"), "pods": ("v1", "Pod")}


def manifest_problems(document: Tree, plural: str) -> list[str]:
    """What a strict server would not take."""
    version, kind = KINDS[plural]
    if (document.get("apiVersion"), document.get("kind")) != (version, kind):
        return [f"no {kind} of {version}"]
    name = document["metadata"].get("name", "")
    stub = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-config"}, "data": {}}
    found = check([document, stub] if plural == "rayjobs" else [document])
    if plural == "rayjobs" and SHARED.is_dir():
        found += refusals(SHARED, document)
    return found


class Server(ThreadingHTTPServer):
    """Serves a fake."""

    daemon_threads = True

    def __init__(self, fake: "FakeKube") -> None:
        self.fake = fake
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


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
        if trouble and not trouble.done:
            return self._fail(trouble.status, trouble.message, trouble.headers)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._fail(401, "Unauthorized")
        found = _PATH.fullmatch(urlsplit(self.path).path)
        if found is None or found["plural"] not in KINDS:
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
