"""A fake of Ray's Jobs API with one job, for commands that only look at jobs or stop one."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import ray

from multicsr.deploy.resources import JOB_LABEL
from multicsr.deploy.submit.job import RUN

NAME = "night"
VERSION = {"version": "4", "ray_version": ray.__version__, "ray_commit": ray.__commit__}
JOB = {
    "type": "SUBMISSION",
    "submission_id": NAME,
    "entrypoint": "python -m ray_jobs.refresh",
    "start_time": 1_764_000_000_000,
    "metadata": {RUN: NAME, JOB_LABEL: "refresh"},
}


class _Handler(BaseHTTPRequestHandler):
    """Answers as a Ray head does. A job that was stopped is over at the next look, and runs after it."""

    status = "RUNNING"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        job, type(self).status = {**JOB, "status": type(self).status}, "RUNNING"
        answers: dict[str, Any] = {
            "/api/version": VERSION,
            "/api/jobs/": [job],
            f"/api/jobs/{NAME}": job,
            f"/api/jobs/{NAME}/logs": {"logs": "one\ntwo\n"},
        }
        self._send(answers[self.path])

    def do_POST(self) -> None:
        type(self).status = "STOPPED"
        self._send({"stopped": True})

    def _send(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def jobs_api() -> Iterator[str]:
    """Serve the fake on a free port; gives its address."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
