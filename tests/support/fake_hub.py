"""A local imitation of the Hugging Face hub: repositories are made, files and large files are committed."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_" + "w" * 20
READ_ONLY_TOKEN = "hf_" + "r" * 20
LARGE = (".safetensors", ".parquet", ".onnx")
_PREFIXES = {"model": "", "dataset": "datasets/"}


@dataclass
class Repository:
    """A repository with the files of its last commit."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    num_commits: int = 0


class FakeHub:
    """A hub at an address of this machine."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        """Repositories by type and id, such as `models/org/name`."""
        self.objects: dict[str, bytes] = {}
        """Large files by SHA-256."""
        self.failures: dict[str, list[int]] = {}
        """End of a path without its query -> status codes of the next answers there."""
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FakeHub":
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def used_hub(patch: pytest.MonkeyPatch, token: str | None = TOKEN) -> Iterator[FakeHub]:
    """A hub that huggingface_hub uses in this process, with a token or with none."""
    from huggingface_hub import constants

    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    if token is not None:
        patch.setenv("HF_TOKEN", token)
    with FakeHub() as hub:
        patch.setenv("HF_ENDPOINT", hub.address)
        yield hub


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        path = self._begin()
        if path is None:
            return
        key, _, rest = self._repository(path.removeprefix("/api/"))
        repository = self.hub.repositories.get(key)
        if repository is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif rest.startswith("tree/"):
            files = repository.files.items()
            self._send(200, [{"type": "file", "path": k, "size": len(v), "oid": "0" * 40} for k, v in files])
        else:
            self._send(200, {"id": key.partition("/")[2], "private": repository.private, "siblings": []})

    def do_PUT(self) -> None:
        path = self._begin(signed=False)
        if path is None:
            return
        digest = hashlib.sha256(self.body).hexdigest()
        assert digest == path.rpartition("/")[2]
        self.hub.objects[digest] = self.body
        self._send(200, {})

    def do_POST(self) -> None:
        path = self._begin()
        if path is None:
            return
        if path == "/api/repos/create":
            self._create(json.loads(self.body))
        elif path == "/api/validate-yaml":
            content = json.loads(self.body)["content"]
            errors = [] if content.startswith("---\n") else [{"message": "no metadata"}]
            self._send(400 if errors else 200, {"errors": errors, "warnings": []})
        elif "/preupload/" in path:
            self._send(200, {"files": [self._mode(file) for file in json.loads(self.body)["files"]]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._send(200, {"transfer": "basic", "objects": [*map(self._upload, self._objects())]})
        elif "/commit/" in path:
            self._commit(path)

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        kind = wanted.get("type", "model")
        url = f"{self.hub.address}/{_PREFIXES[kind]}{name}"
        if f"{kind}s/{name}" in self.hub.repositories:
            self._send(409, {"error": "You already created this repo", "url": url})
            return
        self.hub.repositories[f"{kind}s/{name}"] = Repository(wanted.get("visibility") == "private")
        self._send(200, {"url": url, "name": name})

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["path"].endswith(LARGE) else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def _objects(self) -> list[dict[str, Any]]:
        objects: list[dict[str, Any]] = json.loads(self.body)["objects"]
        return objects

    def _upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.hub.address}/upload/{wanted['oid']}", "header": {}}
        return {**wanted, "actions": {"upload": upload}}

    def _commit(self, path: str) -> None:
        key, _, _ = self._repository(path.removeprefix("/api/"))
        repository = self.hub.repositories[key]
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "file":
                    repository.files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    repository.files[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del repository.files[value["path"]]
        repository.num_commits += 1
        commit = f"{repository.num_commits:040x}"
        url = f"{self.hub.address}/{key}/commit/{commit}"
        self._send(200, {"commitUrl": url, "commitOid": commit, "pullRequestUrl": None})

    def _repository(self, path: str) -> tuple[str, str, str]:
        """Split `models/org/name/rest`."""
        kind, organization, name, *rest = path.split("/")
        return f"{kind}/{organization}/{name}", name, "/".join(rest)

    def _begin(self, *, signed: bool = True) -> str | None:
        """Read a request and return its path; answer it if it fails or has no right."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        for end, codes in self.hub.failures.items():
            if path.endswith(end) and codes:
                self._send(codes.pop(0), {"error": "made to fail"})
                return None
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if signed and token not in (TOKEN, READ_ONLY_TOKEN):
            self._send(401, {"error": "Invalid credentials in Authorization header"})
            return None
        if token == READ_ONLY_TOKEN and self.command != "GET":
            self._send(403, {"error": "You don't have the rights to create a model under this namespace"})
            return None
        return path

    def _send(self, status: int, document: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
