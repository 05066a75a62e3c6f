"""Client of the batch API of an endpoint: files of requests, batches, and files of their answers.

Every call is one attempt; `BatchEndpoint` decides what is tried again. A batch carries a digest of its
requests as metadata, so that a process that starts finds the batches of one that was killed.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Final, TypeVar
from urllib.parse import parse_qsl

import httpx2
from pydantic import BaseModel, BeforeValidator, JsonValue, ValidationError

from multicsr.config import LLMConfig
from multicsr.errors import ConfigError
from multicsr.llm.openai.answers import (
    AnswerKind,
    ChatAnswer,
    ChatFailure,
    mapping,
    read,
    read_failure,
)
from multicsr.llm.openai.client import ChatResponse, open_library, response_of
from multicsr.messages.redaction import redact

_MOST_BYTES = 2**29
"""Maximum size of a file of answers in bytes; those of 2,000 rows have about 20 MB."""
_DIGEST = "multicsr_requests"
"""Key of the digest in the metadata of a batch."""
_PAGE = 100
"""Number of batches in one answer to a search, the most of the API."""
_PATH: Final = "/v1/chat/completions"
"""Path of the requests of a batch, whatever the path of the endpoint is."""
_IS_OVER = ("completed", "failed", "expired", "cancelled")
_GONE = (404, 410)
"""HTTP status codes of a file that was deleted: providers keep them for some weeks."""
M = TypeVar("M", bound=BaseModel)


class BatchCallError(Exception):
    """Failure of one call of the batch API."""

    def __init__(self, failure: ChatFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class _Counts(BaseModel):
    """Numbers of the requests of a batch."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class _Error(BaseModel):
    """Reason why a batch, or a request of it, has no answer."""

    code: str | None = None
    message: str | None = None

    def __str__(self) -> str:
        text = f"{self.code or ''}: {self.message or ''}".strip(": ")
        return redact(" ".join(text.split()))[:300]


class _Errors(BaseModel):
    """Errors of a batch as a whole."""

    data: list[_Error] | None = None


class RequestBatch(BaseModel):
    """State of a batch."""

    id: str
    status: str
    metadata: Annotated[dict[str, JsonValue], BeforeValidator(mapping)] = {}
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: Annotated[_Counts, BeforeValidator(mapping)] = _Counts()
    errors: Annotated[_Errors, BeforeValidator(mapping)] = _Errors()

    @property
    def is_over(self) -> bool:
        """Return True if the batch answers nothing more."""
        return self.status in _IS_OVER

    @property
    def is_of_use(self) -> bool:
        """Return True if the batch has answers or may get some."""
        return not self.is_over or self.output_file_id is not None

    @property
    def reason(self) -> str:
        """Return the first error of the batch as a whole."""
        return str((self.errors.data or [_Error(message=self.status)])[0])


class _Page(BaseModel):
    """Batches in one answer to a search."""

    data: list[RequestBatch]
    has_more: bool = False


class _File(BaseModel):
    """Uploaded file."""

    id: str


class _LineResponse(BaseModel):
    """Response to one request of a batch."""

    status_code: int
    body: JsonValue = None


class _Line(BaseModel):
    """Line of a file of answers."""

    custom_id: str
    response: _LineResponse | None = None
    error: _Error | None = None


class BatchClient:
    """Client of the files and batches at `llm.base_url`.

    Raises:
        ConfigError: the key cannot be sent in an HTTP header.
    """

    def __init__(self, config: LLMConfig) -> None:
        base, _, query = str(config.base_url).partition("?")
        self.url = f"{base.rstrip('/')}/batches"
        self._library = open_library(config, _MOST_BYTES).with_options(default_query=dict(parse_qsl(query)))

    def find(self, digest: str) -> list[RequestBatch]:
        """Return the batches with this digest.

        Raises:
            BatchCallError: the call failed.
        """
        return [batch for batch in self._batches() if batch.metadata.get(_DIGEST) == digest]

    def create(self, digest: str, lines: bytes) -> RequestBatch:
        """Upload requests and make a batch of them.

        Args:
            digest: digest of the requests, by which `find` finds the batch.
            lines: the requests as JSON lines.

        Raises:
            BatchCallError: a call failed; a batch may have been made nevertheless.
            ConfigError: the endpoint keeps no metadata, so `find` could not find the batch.
        """
        file = self._call(
            _File,
            lambda: (
                self._library.files.with_raw_response.create(
                    file=(f"{digest}.jsonl", lines), purpose="batch"
                ).http_response
            ),
        )
        batch = self._call(
            RequestBatch,
            lambda: (
                self._library.batches.with_raw_response.create(
                    input_file_id=file.id,
                    endpoint=_PATH,
                    completion_window="24h",
                    metadata={_DIGEST: digest},
                ).http_response
            ),
        )
        if batch.metadata.get(_DIGEST) != digest:
            self._call(
                RequestBatch, lambda: self._library.batches.with_raw_response.cancel(batch.id).http_response
            )
            raise ConfigError(
                f"llm.batch: {self.url} keeps no metadata of batches, so a run that is started again would "
                "not find them and would pay twice; set llm.batch to false"
            )
        return batch

    def get(self, batch_id: str) -> RequestBatch:
        """Return the state of a batch.

        Raises:
            BatchCallError: the call failed.
        """
        return self._call(
            RequestBatch, lambda: self._library.batches.with_raw_response.retrieve(batch_id).http_response
        )

    def results(self, batch: RequestBatch) -> dict[str, ChatAnswer | ChatFailure]:
        """Return what the files of a batch hold, by the ids of the requests.

        Raises:
            BatchCallError: a call failed.
        """
        found: dict[str, ChatAnswer | ChatFailure] = {}
        for file_id in (batch.error_file_id, batch.output_file_id):
            for line in self._lines(file_id) if file_id else ():
                found[line.custom_id] = _read_line(line)
        return found

    def close(self) -> None:
        """Close all connections."""
        self._library.close()

    def _batches(self) -> Iterator[RequestBatch]:
        """Yield all batches of the account, page by page."""
        last = None
        while True:
            page = self._call(_Page, partial(self._page, last))
            yield from page.data
            if not page.has_more or not page.data or page.data[-1].id == last:
                return
            last = page.data[-1].id

    def _page(self, last: str | None) -> httpx2.Response:
        """Return the response with the batches after one; with the first ones if there is none."""
        query = {"after": last} if last else None
        return self._library.batches.with_raw_response.list(limit=_PAGE, extra_query=query).http_response

    def _lines(self, file_id: str) -> Iterator[_Line]:
        """Yield the lines of a file, without those that are none; nothing if the file was deleted."""
        response = self._respond(lambda: self._library.files.with_raw_response.content(file_id).http_response)
        if response.status in _GONE:
            return
        if failure := read_failure(response.status, response.headers, b""):
            raise BatchCallError(failure)
        for line in response.body.splitlines():
            try:
                yield _Line.model_validate_json(line)
            except ValidationError:
                continue  # its request counts as not answered

    def _call(self, kind: type[M], call: Callable[[], httpx2.Response]) -> M:
        """Return the object in the response to a call."""
        response = self._respond(call)
        if failure := read_failure(*response):
            raise BatchCallError(failure)
        try:
            return kind.model_validate_json(response.body)
        except ValidationError as error:
            raise BatchCallError(
                ChatFailure(AnswerKind.UNUSABLE, "no batch API", "an answer that is none of a batch API")
            ) from error

    def _respond(self, call: Callable[[], httpx2.Response]) -> ChatResponse:
        """Return the response to a call, whatever its status."""
        response = response_of(call, self.url)
        if isinstance(response, ChatFailure):
            raise BatchCallError(response)
        return response


def _read_line(line: _Line) -> ChatAnswer | ChatFailure:
    """Return the answer to one request, or its failure by the same rules as for a single request."""
    if line.response is None:
        return ChatFailure(
            AnswerKind.PASSING, "", str(line.error or _Error(message="no answer in the batch"))
        )
    return read(line.response.status_code, {}, json.dumps(line.response.body).encode())
