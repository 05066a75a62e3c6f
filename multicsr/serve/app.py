"""Paths of the server: who may ask, how much, and what comes back."""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web
from pydantic import JsonValue

from multicsr.errors import WorkerLost
from multicsr.llm.base import NOT_NUMBERS, Rejection
from multicsr.llm.request import DecodedTokens
from multicsr.messages.error_chain import describe
from multicsr.messages.terminal import one_line
from multicsr.serve.answers import DONE, AnswerForm, Tree, event, token_entry
from multicsr.serve.bodies import ChatBody, CompletionBody, parse
from multicsr.serve.errors import RequestError, to_error
from multicsr.serve.text import GrowingText

if TYPE_CHECKING:
    from multicsr.serve.tasks import LabelTask, Tasks, WriteTask

_log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")
_MOST_BYTES = 4 * 2**20
"""Maximum size of a body in bytes, unpacked."""
_ENCODINGS = ("identity", "gzip", "deflate")
"""Ways in which a body may be packed."""
_BODY_S = 30.0
"""Seconds within which a body must arrive."""
_RETRY_S = 1
"""Seconds after which a client that found all places taken may try again."""
_START_RETRY_S = 5
"""Seconds after which a client that came too early may try again."""
OFFER: Tree = {"contrast": True, "labels": True, "draw_key": True}
"""Offers beyond OpenAI's protocol, as `/v1/models` shows it under `multicsr`."""


class Service:
    """Requests to one model."""

    def __init__(self, model: str, token: str | None, most_requests: int) -> None:
        """Serve nothing yet.

        Args:
            model: name of the model in requests.
            token: token that every request must carry; None: nobody is asked for one.
            most_requests: number of requests in hand, running and waiting; further ones are turned away.
        """
        self._model, self._token, self._most_requests = model, token, most_requests
        self._tasks: Tasks | None = None
        self._created_s = int(time.time())
        self._preparing = ThreadPoolExecutor(1, "prepare")
        self.num_requests = 0
        """Number of requests in hand."""
        self.is_ending = False
        """True if new requests are turned away because the server ends."""
        self.failure: asyncio.Future[WorkerLost] = asyncio.get_running_loop().create_future()
        """Error after which the engine cannot go on."""

    def start(self, tasks: "Tasks") -> None:
        """Serve with a loaded engine."""
        self._tasks = tasks

    def close(self) -> None:
        """Wait for what runs, and end the engine; no request may be in hand."""
        self._preparing.shutdown()
        if self._tasks is not None:
            self._tasks.close()

    def app(self) -> web.Application:
        """Return the application with all its paths."""
        app = web.Application(client_max_size=_MOST_BYTES, middlewares=[self._guard])
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completion)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Ask for the token, limit the number of requests, and answer errors in OpenAI's form."""
        try:
            if request.path == "/health":
                return await handler(request)
            self._check_token(request)
            if self.is_ending or self._tasks is None:
                state = "ends" if self.is_ending else "starts: the model is being loaded"
                raise RequestError(503, f"the server {state}", retry_after_s=_START_RETRY_S)
            if self.num_requests >= self._most_requests:
                message = f"all {self._most_requests} places are taken; try again"
                raise RequestError(429, message, code="queue_full", retry_after_s=_RETRY_S)
            self.num_requests += 1
            try:
                return await handler(request)
            finally:
                self.num_requests -= 1
        except Exception as error:  # noqa: BLE001 - the client gets the answer, and the server goes on
            answer = self._translate(error)
            return web.json_response(answer.body(), status=answer.status, headers=answer.headers)

    def _translate(self, error: Exception) -> RequestError:
        """Return the answer to a request that failed; the server ends if its engine is lost."""
        if isinstance(error, RequestError):
            return error
        if isinstance(error, web.HTTPException):  # there is no such path, or it has no such method
            return RequestError(error.status, error.reason)
        if isinstance(error, WorkerLost) and not self.failure.done():
            self.failure.set_result(error)
        _log.error("a request failed: %s", one_line(describe(error)))
        return RequestError(500, one_line(describe(error)))

    def _check_token(self, request: web.Request) -> None:
        """Raise unless the request carries the token."""
        sent = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if self._token is not None and not hmac.compare_digest(sent, f"Bearer {self._token}".encode()):
            raise RequestError(401, "the header Authorization must be `Bearer TOKEN`", code="invalid_api_key")

    async def _health(self, request: web.Request) -> web.Response:
        """Answer whether the model is loaded."""
        is_ready = self._tasks is not None and not self.is_ending
        return web.json_response({"ready": is_ready}, status=200 if is_ready else 503)

    async def _models(self, request: web.Request) -> web.Response:
        """Answer with the one model, and what is offered beyond OpenAI's protocol."""
        entry: Tree = {
            "id": self._model,
            "object": "model",
            "created": self._created_s,
            "owned_by": "multicsr",
        }
        entry["multicsr"] = OFFER
        name = request.match_info.get("name")
        if name not in (None, self._model):
            raise RequestError(404, f"model: {name!r} is not served here", code="model_not_found")
        return web.json_response(entry if name else {"object": "list", "data": [entry]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        """Answer POST /v1/chat/completions."""
        body = parse(ChatBody, await _read(request), self._model)
        if body.labels is not None:
            return await self._read_labels(body)
        task = await self._prepare(lambda: self._ready.for_chat(body))
        return await self._write(request, body, task, is_chat=True)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        """Answer POST /v1/completions."""
        body = parse(CompletionBody, await _read(request), self._model)
        task = await self._prepare(lambda: self._ready.for_completion(body))
        return await self._write(request, body, task, is_chat=False)

    @property
    def _ready(self) -> "Tasks":
        """Return the queue before the engine, which the guard has looked for."""
        assert self._tasks is not None  # noqa: S101 - see above
        return self._tasks

    async def _prepare(self, work: Callable[[], T]) -> T:
        """Run a tokenizer in the one thread that may use it, so that other requests go on meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._preparing, work)

    async def _read_labels(self, body: ChatBody) -> web.Response:
        """Answer with the probabilities of labels."""
        labels = [label.strip() for label in body.labels or ()]
        task: LabelTask = await self._prepare(lambda: self._ready.for_labels(body))
        found = usable(await asyncio.wrap_future(self._ready.read_labels(task)))
        form = AnswerForm(self._model, True, 0.0, len(task.prompt), 0)
        likeliest = labels[int(found.argmax())]
        return web.json_response(form.whole(likeliest, 0, "stop", label_probabilities=found.tolist()))

    async def _write(
        self, request: web.Request, body: ChatBody | CompletionBody, task: "WriteTask", *, is_chat: bool
    ) -> web.StreamResponse:
        """Write a text and answer with it, at once or in a stream.

        The text is abandoned if the client goes away: then this coroutine is cancelled.
        """
        asked = task.request
        num_noisy = len(asked.noisy) if asked.omega else 0
        form = AnswerForm(self._model, is_chat, asked.omega, len(asked.main), num_noisy)
        text = _TextInProgress()
        future = self._ready.write(task, text.on_tokens)
        future.add_done_callback(text.notify)
        try:
            if body.stream:
                return await _stream(request, body, form, task, text, future, self._translate)
            written = usable(await asyncio.wrap_future(future))
            logprobs = await self._logprobs(task, written)
        finally:
            text.is_wanted = False
            future.cancel()  # if it still waits, because its client went away
        shown = await self._prepare(lambda: task.ends.shown(written.tokens))
        answer = form.whole(shown, task.num_written(written), _finish(written), logprobs=logprobs)
        return web.json_response(answer)

    async def _logprobs(self, task: "WriteTask", written: DecodedTokens) -> Tree | None:
        """Return the log-probabilities of a text, in OpenAI's form; None if they are not wanted."""
        if task.num_likeliest is None:
            return None
        positions = usable(await asyncio.wrap_future(self._ready.read_top(task, written.tokens)))
        text_of = self._ready.token_text
        content: list[JsonValue] = []
        for token, log_p in zip(written.tokens, positions, strict=True):
            likeliest = list(log_p.items())[: task.num_likeliest]
            top: list[JsonValue] = [token_entry(text_of(each), value) for each, value in likeliest]
            content.append({**token_entry(text_of(token), log_p.get(token, -9999.0)), "top_logprobs": top})
        return {"content": content}


class _TextInProgress:
    """Tokens that a thread of the engine hands to the event loop."""

    def __init__(self) -> None:
        self.tokens: Sequence[int] = ()
        self.is_wanted = True
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def on_tokens(self, tokens: Sequence[int]) -> bool:
        """Take the tokens so far; called in a thread of the engine."""
        self.tokens = list(tokens)
        self.notify()
        return self.is_wanted

    def notify(self, _: object = None) -> None:
        """Wake the coroutine that waits; it may be called in any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def wait(self) -> Sequence[int]:
        """Wait for a change and return the tokens so far."""
        await self._changed.wait()
        self._changed.clear()
        return self.tokens


async def _stream(
    request: web.Request,
    body: ChatBody | CompletionBody,
    form: AnswerForm,
    task: "WriteTask",
    text: _TextInProgress,
    future: "Future[DecodedTokens | Rejection]",
    translate: Callable[[Exception], RequestError],
) -> web.StreamResponse:
    """Answer with a text in chunks; an error after the first of them is an event of its own."""
    growing = GrowingText(task.ends)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    await response.write(event(form.chunk("", is_first=True)))
    while not future.done():
        piece = growing.grow(await text.wait())
        if piece:
            await response.write(event(form.chunk(piece)))
    try:
        written = usable(future.result())
    except Exception as error:  # noqa: BLE001 - the status has been sent
        await response.write(event(translate(error).body()))
        return response
    if piece := growing.end(written.tokens):
        await response.write(event(form.chunk(piece)))
    await response.write(event(form.chunk(None, _finish(written))))
    if body.stream_options and body.stream_options.include_usage:
        await response.write(event(form.usage_chunk(task.num_written(written))))
    await response.write(DONE)
    return response


def usable(result: T | Rejection) -> T:
    """Return a result of the engine.

    Raises:
        RequestError: the engine has rejected the request, or its logits were not numbers.
    """
    if isinstance(result, Rejection):
        raise to_error(result)
    if isinstance(result, DecodedTokens) and not result.certain:
        raise to_error(NOT_NUMBERS)
    return result


def _finish(written: DecodedTokens) -> str:
    """Return the reason why a text ends."""
    return "stop" if written.finished else "length"


async def _read(request: web.Request) -> bytes:
    """Return the body of a request.

    Raises:
        RequestError: it is no JSON by its type, too long, or too slow.
    """
    if request.content_type != "application/json":
        raise RequestError(415, "the header Content-Type must be application/json")
    if request.headers.get("Content-Encoding", "identity").lower() not in _ENCODINGS:
        raise RequestError(415, f"the header Content-Encoding must be one of {', '.join(_ENCODINGS)}")
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise RequestError(413, f"the body is longer than {_MOST_BYTES:,} bytes") from error
    except web.RequestPayloadError as error:
        raise RequestError(400, f"the body cannot be read: {one_line(str(error))}") from error
    except TimeoutError as error:
        raise RequestError(408, f"the body did not arrive within {_BODY_S:g} s") from error
