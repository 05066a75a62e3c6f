"""A chat endpoint on this machine with files and batches, whose every answer is a function the test gives."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from urllib.parse import parse_qs, urlsplit

from multicsr.llm.openai.batch_engine import OpenAIBatchEngine
from tests.support.chat_server import ChatServer, Response
from tests.support.tiny_llms import make_config


@dataclass
class Fate:
    """What becomes of a batch."""

    status: str = "completed"
    answers: int = 10**9
    """Number of requests that are answered before the batch ends."""
    polls: int = 0
    """Number of looks for which it is in progress."""
    errors: list[dict] = field(default_factory=list)
    """Errors of the batch as a whole."""


class BatchServer(ChatServer):
    """Server that also keeps files and batches; chat requests that do not come in a batch are counted apart.

    `fates` are those of the next batches; others complete at once. `before` may return a response to a call,
    given its method and path, instead of what the server would do.
    """

    def __init__(self, answer: Callable[[dict], Response]):
        super().__init__(answer)
        self.files: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.batches: dict[str, dict] = {}
        self.polls: dict[str, int] = {}
        self.fates: list[Fate] = []
        self.paid: list[str] = []
        """Bodies of the requests that were answered in batches, as sorted JSON."""
        self.page = 2
        self.keeps_metadata = True
        self.before: Callable[[str, str], Response | None] = lambda method, path: None
        self.batch_lock = threading.RLock()

    def respond(self, method, path, headers, data) -> Response:
        """Answer one call of the API."""
        url = urlsplit(path)
        with self.batch_lock:
            if (response := self.before(method, url.path)) is not None:
                return response
            if url.path == "/v1/files":
                return self._upload(headers, data)
            if url.path.startswith("/v1/files/"):
                name = url.path.split("/")[3]
                return (200, {}, self.files[name]) if name in self.files else (404, {}, {"error": "gone"})
            if url.path == "/v1/batches":
                body = json.loads(data) if method == "POST" else None
                return self._create(body) if body else self._list(parse_qs(url.query))
            if url.path.startswith("/v1/batches/"):
                return 200, {}, self._look(url.path.split("/")[3])
        return 404, {}, {"error": "no such path"}

    def _upload(self, headers, data: bytes) -> Response:
        head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
        parts = message_from_bytes(head + data, policy=policy.HTTP).iter_parts()
        fields = {part.get_param("name", header="content-disposition"): part for part in parts}
        assert fields["purpose"].get_content().strip() == "batch"
        name = f"file-{len(self.files)}"
        self.files[name] = fields["file"].get_payload(decode=True)
        self.uploads.append(name)
        return 200, {}, {"id": name, "object": "file", "purpose": "batch"}

    def _create(self, body: dict) -> Response:
        assert (body["endpoint"], body["completion_window"]) == ("/v1/chat/completions", "24h")
        number = len(self.batches)
        fate = self.fates.pop(0) if self.fates else Fate()
        lines = self.files[body["input_file_id"]].splitlines()
        self.batches[f"batch-{number}"] = {
            "id": f"batch-{number}",
            "object": "batch",
            "status": "in_progress",
            "metadata": body["metadata"] if self.keeps_metadata else None,
            "input_file_id": body["input_file_id"],
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
            "fate": fate,
        }
        return 200, {}, self._shown(f"batch-{number}")

    def _list(self, query: dict) -> Response:
        names = list(reversed(self.batches))
        start = names.index(query["after"][0]) + 1 if "after" in query else 0
        page = [self._shown(name) for name in names[start : start + self.page]]
        return 200, {}, {"data": page, "has_more": start + self.page < len(names)}

    def _look(self, name: str) -> dict:
        """Return the state of a batch; it ends once it was looked at often enough."""
        batch = self.batches[name]
        self.polls[name] = self.polls.get(name, 0) + 1
        if batch["status"] == "in_progress" and self.polls[name] > batch["fate"].polls:
            self._end(batch)
        return self._shown(name)

    def _end(self, batch: dict) -> None:
        """Answer the requests of a batch, the last one first."""
        fate = batch["fate"]
        batch["status"] = fate.status
        if fate.status == "failed":
            batch["errors"] = {"object": "list", "data": fate.errors}
            return
        output, errors = [], []
        for number, line in enumerate(reversed(self.files[batch["input_file_id"]].splitlines())):
            request = json.loads(line)
            assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
            said = {"id": f"r{number}", "custom_id": request["custom_id"], "response": None, "error": None}
            if number >= fate.answers:
                said["error"] = {"code": f"batch_{fate.status}", "message": "it was not executed in time"}
                errors.append(said)
                continue
            status, _, body = self.answer(request["body"])
            said["response"] = {"status_code": status, "request_id": "x", "body": body}
            (output if status == 200 else errors).append(said)
            if status == 200:
                self.paid.append(json.dumps(request["body"], sort_keys=True))
        for field_name, lines in (("output_file_id", output), ("error_file_id", errors)):
            if lines:
                batch[field_name] = f"file-{len(self.files)}"
                self.files[batch[field_name]] = "\n".join(map(json.dumps, lines)).encode()
        batch["request_counts"] |= {"completed": len(output), "failed": len(errors)}

    def _shown(self, name: str) -> dict:
        return {key: value for key, value in self.batches[name].items() if key != "fate"}


def batch_engine_at(url: str, **sections: dict) -> OpenAIBatchEngine:
    """The engine for batches at this address."""
    sections.setdefault("score", {"method": "both"})
    llm = {"engine": "openai", "base_url": url, "batch": True, **sections.pop("llm", {})}
    generate = {"omega": 0, **sections.pop("generate", {})}
    return OpenAIBatchEngine(make_config("some-model", llm=llm, generate=generate, **sections), 0.01)
