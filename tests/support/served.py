"""A model that is served from a thread of the test's own process."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from multicsr.llm.token_engine import TokenEngine
from multicsr.llm.transformers.engine import TransformersEngine
from multicsr.serve.app import Service
from multicsr.serve.tasks import Tasks
from tests.support.tiny_llms import make_config

NAME = "tiny"


class Served:
    """A running server; an engine that is given later is answered with 503 until then."""

    def __init__(self, name: str, token: str | None, most_requests: int) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.service, self.url = self._call(self._listen(name, token, most_requests))

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    async def _listen(self, name: str, token: str | None, most_requests: int) -> tuple[Service, str]:
        service = Service(name, token, most_requests)
        self._runner = web.AppRunner(
            service.app(), access_log=None, handler_cancellation=True, shutdown_timeout=1.0
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return service, f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    def load(self, engine: TokenEngine, at_once: int = 8) -> None:
        self.service.start(Tasks(engine, at_once))

    def close(self) -> None:
        self._call(self._runner.cleanup())
        self.service.close()
        self.loop.call_soon_threadsafe(self.loop.stop)

    def send(self, path: str, body: object, **headers: str) -> tuple[int, dict[str, str], Any]:
        """Post a body, JSON unless it is bytes; return status, headers and the JSON of the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/{path}", data, {"Content-Type": "application/json", **headers}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, dict(response.headers), json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), json.load(error)

    def ask(self, path: str, **body: object) -> Any:
        """Post a body for the model that is served; return the JSON of the answer, which must be one."""
        status, _, answer = self.send(path, {"model": NAME, **body})
        assert status == 200, answer
        return answer


def streamed(url: str, body: dict, after_first: Callable[[], object]) -> str:
    """The text of a stream of completions; `after_first` is called once the stream has begun."""
    data = json.dumps({**body, "stream": True}).encode()
    request = urllib.request.Request(f"{url}/completions", data, {"Content-Type": "application/json"})
    pieces = []
    with urllib.request.urlopen(request, timeout=300) as response:
        for line in response:
            if line == b"data: [DONE]\n":
                return "".join(pieces)
            if line.startswith(b"data: "):
                if not pieces:
                    after_first()
                pieces.append(json.loads(line[6:])["choices"][0]["text"])
    raise AssertionError("the stream was broken off")


@contextmanager
def serving_engine(
    engine: TokenEngine | None,
    *,
    name: str = NAME,
    token: str | None = None,
    most_requests: int = 64,
    at_once: int = 8,
) -> Iterator[Served]:
    """Serve an engine; None: the server starts and has none yet."""
    served = Served(name, token, most_requests)
    try:
        if engine is not None:
            served.load(engine, at_once)
        yield served
    finally:
        served.close()


def engine_of(model: Path | str, **sections: dict) -> TransformersEngine:
    """The engine as `multicsr serve` loads it: labels come with the requests."""
    sections.setdefault("score", {"method": "llm_stated"})
    return TransformersEngine(make_config(model, **sections))
