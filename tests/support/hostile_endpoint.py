"""A chat endpoint that answers at random: `python -m tests.support.hostile_endpoint FOLDER SHARE`.

It writes its port to FOLDER/port and appends a line to FOLDER/paid for every answer that it was paid for: a
hash of what was asked. SHARE of the requests meet with one of 40 statuses or with a body that is no answer;
what is answered is a function of the request.
"""

import hashlib
import json
import math
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STATUSES = [
    *(204, 206, 301, 302, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413),
    *(414, 415, 418, 421, 422, 425, 429, 431, 451, 500, 501, 502, 503, 504, 507, 520, 524, 529, 530, 599),
]
BODIES = [
    b"",
    b"<html><body>Just a moment...</body></html>",
    b'{"error": {"message": "overloaded", "code": 529}}',
    b'{"error": {"message": "content_filter", "code": "content_filter"}}',
    b'{"choices": []}',
    b'{"choices": [{"message": {"content": "half"}, "finish_reason": "abort"}]}',
    b'{"choices": [{"message": {"content": "half"}, "finish_reason": null}], "usage": null}',
    b'{"choices": [{"message": {"content": "a \\ud800"}, "finish_reason": "stop"}]}',
    b'{"choices": [{"message": {"content": "filtered"}, "finish_reason": "content_filter"}]}',
    b'{"choices": [{"mess',
    b"\xff\xfe",
    b"[" * 10_000,
    b"null",
]


def name_of(body: dict[str, object]) -> str:
    """Return a hash of a request."""
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=8).hexdigest()


def answer(body: dict[str, object]) -> dict[str, object]:
    """Return what a healthy endpoint says, a function of the request."""
    seed = name_of(body)
    draw = random.Random(seed)
    if body.get("logprobs"):
        top = [{"token": f" {i}", "logprob": math.log(draw.uniform(0.01, 0.16))} for i in range(6)]
        choice: dict[str, object] = {
            "message": {"content": "4"},
            "logprobs": {"content": [{"top_logprobs": top}]},
        }
    else:
        choice = {"message": {"content": f"Hypothesis {seed[:6]} follows."}}
    return {
        "choices": [{**choice, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        draw = self.server.draw
        if draw.random() >= self.server.share:
            data = json.dumps(answer(body)).encode()
            with self.server.lock, (self.server.folder / "paid").open("a") as paid:
                paid.write(
                    hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=8).hexdigest()
                    + "\n"
                )
            time.sleep(draw.uniform(0, 0.01))
            return self._send(200, data)
        kind = draw.randrange(4)
        if kind == 0:
            return self._send(200, draw.choice(BODIES))
        if kind == 1 and draw.random() < 0.3:
            self.close_connection = True  # cut before or in the midst of the answer
            self.send_response(200)
            self.send_header("Content-Length", "500")
            self.end_headers()
            self.wfile.write(b'{"choices"')
            return None
        return self._send(draw.choice(STATUSES), draw.choice([b"no", b"{}", *BODIES]))

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if status not in (204, 304):
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    folder, share = Path(sys.argv[1]), float(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.folder, server.share, server.draw, server.lock = folder, share, random.Random(5), threading.Lock()
    (folder / "port.new").write_text(str(server.server_port))
    (folder / "port.new").rename(folder / "port")
    server.serve_forever()


if __name__ == "__main__":
    main()
