"""A chat endpoint on this machine whose every answer is a function that the test gives."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

from multicsr.llm.openai.engine import OpenAIEngine
from tests.support.tiny_llms import make_config

Response = tuple[int, dict[str, str], object]
"""Status, headers and body: bytes as they are, anything else as JSON."""


def said(
    text: str, finish: str = "stop", logprobs: object = None, tokens: tuple[int, int] = (5, 3)
) -> Response:
    """An answer of a healthy endpoint."""
    choice = {"message": {"content": text}, "finish_reason": finish, "logprobs": logprobs}
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return 200, {}, {"choices": [choice], "usage": usage}


class ChatServer(ThreadingHTTPServer):
    """Server that counts connections, statuses, and requests in flight."""

    request_queue_size = 256

    def __init__(self, answer: Callable[[dict], Response]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.bodies, self.headers, self.methods = [], [], []
        self.statuses: Counter[int] = Counter()
        self.connections = self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()

    def respond(self, method: str, path: str, headers: Mapping[str, str], data: bytes) -> Response:
        """Answer a call of anything but POST /v1/chat/completions."""
        return 404, {}, {"error": "no such path; only POST /v1/chat/completions is served"}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


S = TypeVar("S", bound=ChatServer)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def setup(self):
        with self.server.lock:
            self.server.connections += 1
        super().setup()

    def do_GET(self):
        self.server.methods.append("GET")
        self._send(*self.server.respond("GET", self.path, self.headers, b""))

    def do_POST(self):
        server = self.server
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with server.lock:
            server.methods.append("POST")
            server.headers.append(self.headers)
        if self.path.partition("?")[0] != "/v1/chat/completions":
            return self._send(*server.respond("POST", self.path, self.headers, data))
        body = json.loads(data)
        with server.lock:
            server.bodies.append(body)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            response = server.answer(body)
        finally:
            with server.lock:
                server.in_flight -= 1
        with server.lock:
            server.statuses[response[0]] += 1
        return self._send(*response)

    def _send(self, status, headers, answer):
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serving(answer: Callable[[dict], Response], kind: type[S] = ChatServer) -> Iterator[S]:
    """Run a server of a kind."""
    with kind(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def engine_at(url: str, backoff_s: float = 0.01, **sections: dict) -> OpenAIEngine:
    """The engine for endpoints at this address."""
    sections.setdefault("score", {"method": "both"})
    llm = {"engine": "openai", "base_url": url, **sections.pop("llm", {})}
    generate = {"omega": 0, **sections.pop("generate", {})}
    return OpenAIEngine(make_config("some-model", llm=llm, generate=generate, **sections), backoff_s)
