"""The proxy's server: one thread per connection, which does to each request what the proxy decides."""

import socket
import struct
import sys
import threading
from contextlib import suppress
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.support.s3.faults import ERRORS, Fault
from tests.support.s3.wire import Answer, ask, error_answer, read_body

if TYPE_CHECKING:
    from tests.support.s3.proxy import FaultyProxy

_POLL_S = 0.02


class ProxyHandler(BaseHTTPRequestHandler):
    """Answers the requests of one connection. `Expect: 100-continue` is answered by the base class."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "ProxyServer"

    def do_any(self) -> None:
        proxy = self.server.proxy
        fault = proxy.judge(self.command, self.path, self.headers.items())
        if fault is Fault.DROP_BEFORE:
            return self._reset()
        body = read_body(self.rfile, self.headers)
        if fault in ERRORS:
            return self._send(error_answer(self.command, *ERRORS[fault]))
        if fault is Fault.HANG_BEFORE:
            return self._hang()
        try:
            answer = ask(proxy.upstream, self.command, self.path, self.headers.items(), body)
        except (OSError, HTTPException):
            return self._reset()
        return self._deliver(answer, fault)

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = do_any

    def log_message(self, *_: object) -> None:
        """No line per request."""

    def _deliver(self, answer: Answer, fault: Fault | None) -> None:
        match fault:
            case Fault.DROP_AFTER:
                self.close_connection = True
            case Fault.DROP_MIDWAY:
                self._send_half(answer)
            case Fault.HANG_AFTER:
                self._hang()
            case _:
                self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.wfile.write(answer.head() + answer.body)

    def _send_half(self, answer: Answer) -> None:
        head = answer.head()
        if answer.body:
            self.wfile.write(head + answer.body[: len(answer.body) // 2])
            self.close_connection = True
        else:
            # Reset, not closed: http.client takes a head that just ends for a whole one.
            self.wfile.write(head[: len(head) // 2])
            self._reset()

    def _hang(self) -> None:
        self.close_connection = True
        self.connection.settimeout(self.server.proxy.hang_s)
        with suppress(OSError):  # time is up, or the client reset the connection
            self.connection.recv(1)

    def _reset(self) -> None:
        """Close with a RST: with no time to linger, and before the server can send a FIN."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()


class ProxyServer(ThreadingHTTPServer):
    """Serves from its making to `end`."""

    allow_reuse_port = True
    daemon_threads = False  # so that they are waited for
    request_queue_size = 128

    def __init__(self, proxy: "FaultyProxy", address: tuple[str, int]) -> None:
        self.proxy = proxy
        self._open: set[Any] = set()
        super().__init__(address, ProxyHandler)
        threading.Thread(target=self.serve_forever, args=(_POLL_S,), daemon=True).start()

    def end(self) -> None:
        """Stop listening, cut all connections; returns when no request is in hand any more."""
        self.shutdown()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent about clients that went away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
