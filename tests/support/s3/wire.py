"""HTTP/1.1 on either side of the proxy: read a request's body, ask the server, frame an answer.

The Host header and the path go on as the client wrote them, because SigV4 signs them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, responses
from typing import BinaryIO

_TIMEOUT_S = 120.0
_HOP_BY_HOP = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}
"""These concern one connection; bodies are held whole here, so either side gets a length of its own."""


@dataclass(frozen=True)
class Answer:
    """An answer with its whole body, empty for HEAD."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def head(self) -> bytes:
        """Status line and headers as sent, the empty line included."""
        lines = [
            f"HTTP/1.1 {self.status} {self.reason}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def error_answer(method: str, status: int, code: str, message: str) -> Answer:
    """An error in S3's words."""
    text = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>0</RequestId></Error>"
    body = b"" if method == "HEAD" else f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    return Answer(status, responses[status], headers, body)


def read_body(stream: BinaryIO, headers: Message) -> bytes:
    """A request's whole body; aws-chunked is a content encoding and stays. Raises ConnectionError if cut."""
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        return b"".join(_chunks(stream))
    return _exactly(stream, int(headers.get("Content-Length", 0)))


def ask(address: str, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
    """The server's answer. Raises OSError or HTTPException when there is none."""
    connection = HTTPConnection(address, timeout=_TIMEOUT_S)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in _end_to_end(headers):
            connection.putheader(name, value)
        if body or method in ("PUT", "POST"):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    # The length in an answer to HEAD is the object's, and 204 and 304 have none.
    length = response.getheader("Content-Length") if method == "HEAD" else str(len(data))
    counted = [] if length is None or response.status in (204, 304) else [("Content-Length", length)]
    return Answer(response.status, response.reason, [*_end_to_end(response.getheaders()), *counted], data)


def _end_to_end(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]


def _chunks(stream: BinaryIO) -> Iterable[bytes]:
    while size := int(stream.readline().partition(b";")[0] or b"0", 16):
        yield _exactly(stream, size)
        stream.readline()
    while stream.readline().strip():  # trailers, up to the empty line
        pass


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ConnectionError("the client went away in its body")
    return data
