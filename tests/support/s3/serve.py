"""moto's S3 over HTTP, run as a script: prints the port it took, serves until its stdin ends.

A pipe as stdin ends however the test process ends, kill -9 included, so no server is left behind.
"""

import io
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server

StartResponse = Callable[[str, list[tuple[str, str]]], object]
WSGIApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class OneAtATime:
    """WSGI middleware: reads a request's body, then has the request handled alone.

    moto (5.2.5) looks for If-None-Match and If-Match first and writes later, with no lock between, so that of
    racing writers sometimes two win; and it closes an overwritten object's buffer under a thread that reads
    it. S3 does neither. All requests take the lock: a plain put or a delete must not get between either.
    """

    def __init__(self, app: WSGIApp) -> None:
        self._app = app
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        body = read_body(environ)
        if body is None:  # a client that died in its body has written nothing
            start_response("400 Bad Request", [])
            return []
        environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        with self._lock:
            return self._app(environ, start_response)


def read_body(environ: dict[str, Any]) -> bytes | None:
    """The whole body, b"" if there is none; None if the connection ended within it."""
    if environ.pop("HTTP_TRANSFER_ENCODING", "") == "chunked":
        try:
            return bytes(environ["wsgi.input"].read())
        except OSError:
            return None
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = bytes(environ["wsgi.input"].read(length))
    return body if len(body) == length else None


class QuietHandler(WSGIRequestHandler):
    """No line per request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def main() -> None:
    from moto.moto_server.werkzeug_app import create_backend_app

    app = OneAtATime(create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)  # noqa: T201 - this is how the parent learns it
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
