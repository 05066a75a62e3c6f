"""Any OpenAI-compatible chat endpoint. It shows no logits, so stage 1 is skipped: omega must be 0.

Draws are the endpoint's: a seed per row is sent along, and it is up to the endpoint to honour it.
"""

import hashlib
import http.client
import json
import logging
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, JsonValue, ValidationError

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.generate.engine import Completion, Refusal, Usage, both
from multicsr.prompts import PromptPair, load_prompts
from multicsr.rows import Reason

_log = logging.getLogger(__name__)
_REQUESTS_AT_ONCE = 16
_ATTEMPTS = 6
_TIMEOUT_S = 120
_LONGEST_WAIT_S = 60.0
_TOP_LOGPROBS = 20
_NO_LOGPROBS = "score.method: the endpoint gives no top_logprobs; set score.method and curate.score to stated"
Result = TypeVar("Result")
_BUSY = {408, 409, 429, 500, 502, 503, 504}


class _Token(BaseModel):
    token: str
    logprob: float


class _Position(BaseModel):
    top_logprobs: list[_Token] = []


class _Logprobs(BaseModel):
    content: list[_Position] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Tokens(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(BaseModel):
    """What of an answer is used."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Tokens = _Tokens()


class OpenAIEngine:
    """Sends prompts as chat messages, several at once, and tries again while the endpoint is busy.

    The key comes from the environment variable OPENAI_API_KEY; without it none is sent.
    """

    batches_at_once = 1
    batch_size: int | None = None

    def __init__(self, config: Config, backoff_s: float = 0.5) -> None:
        if config.llm.chat_template is False:
            raise ConfigError("llm.chat_template: an endpoint always chats; leave the setting out")
        self.usage = Usage()
        self._config = config
        self._url = f"{str(config.llm.base_url).rstrip('/')}/chat/completions"
        self._stop = load_prompts(config.generate.prompts).stop[:4]  # the protocol takes no more
        self._backoff_s = backoff_s

    def generate_pairs(
        self, pairs: Sequence[PromptPair], row_ids: Sequence[str]
    ) -> list[tuple[Completion, Completion] | Refusal]:
        generate = self._config.generate
        sampling: dict[str, JsonValue] = {"temperature": generate.temperature, "top_p": generate.top_p}
        jobs = [
            (prompt, f"{row_id}:{direction}")
            for pair, row_id in zip(pairs, row_ids, strict=True)
            for direction, prompt in (("e", pair.entailment), ("c", pair.contradiction))
        ]
        texts = self._complete(jobs, generate.max_new_tokens, sampling)
        return [both(e, c) for e, c in zip(texts[::2], texts[1::2], strict=True)]

    def close(self) -> None:
        """Nothing is held."""

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Refusal]:
        return self._complete(list(zip(prompts, row_ids, strict=True)), max_new_tokens, {"temperature": 0.0})

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Refusal]:
        """From the log-probabilities of the first token; labels are compared without spaces around them."""
        asked: dict[str, JsonValue] = {
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": _TOP_LOGPROBS,
        }
        names = [label.strip() for label in labels]

        def read(answer: _Answer) -> NDArray[np.float64] | Refusal:
            logprobs = answer.choices[0].logprobs
            if logprobs is None or not logprobs.content or not logprobs.content[0].top_logprobs:
                raise ConfigError(_NO_LOGPROBS)
            mass = dict.fromkeys(names, 0.0)
            for token in logprobs.content[0].top_logprobs:
                if token.token.strip() in mass:
                    mass[token.token.strip()] += math.exp(token.logprob)
            total = sum(mass.values())
            if total == 0:
                return Refusal(Reason.SCORE_UNPARSABLE, "no score label among the likeliest tokens")
            return np.array([mass[name] / total for name in names])

        return self._ask_all([self._body(prompt, asked) for prompt in prompts], read)

    def _complete(
        self, jobs: Sequence[tuple[str, str]], max_new_tokens: int, sampling: Mapping[str, JsonValue]
    ) -> list[Completion | Refusal]:
        bodies = []
        for prompt, key in jobs:
            settings: dict[str, JsonValue] = {
                "max_tokens": max_new_tokens,
                "seed": self._seed(key),
                **sampling,
            }
            if self._stop:
                settings["stop"] = list(self._stop)
            bodies.append(self._body(prompt, settings))
        return self._ask_all(bodies, _completion)

    def _body(self, prompt: str, settings: Mapping[str, JsonValue]) -> bytes:
        messages = [{"role": "user", "content": prompt}]
        return json.dumps({"model": self._config.llm.model, "messages": messages, **settings}).encode()

    def _seed(self, key: str) -> int:
        digest = hashlib.blake2b(f"{self._config.seed}:{key}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") >> 1

    def _ask_all(
        self, bodies: Sequence[bytes], read: Callable[[_Answer], Result | Refusal]
    ) -> list[Result | Refusal]:
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            answers = list(pool.map(self._ask, bodies))
        results: list[Result | Refusal] = []
        for answer in answers:
            if isinstance(answer, Refusal):
                results.append(answer)
                continue
            self.usage.add(
                prompt_tokens=answer.usage.prompt_tokens, generated_tokens=answer.usage.completion_tokens
            )
            results.append(read(answer))
        return results

    def _ask(self, body: bytes) -> _Answer | Refusal:
        """One request, repeated while the endpoint is busy or away."""
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, body, headers)
        problem = ""
        for attempt in range(_ATTEMPTS):
            wait_s = self._backoff_s * 2**attempt
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                    return _Answer.model_validate_json(response.read())
            except urllib.error.HTTPError as error:
                message = _message(error)
                if error.code not in _BUSY:
                    return self._refuse(error.code, message)
                problem = f"HTTP {error.code} {message}"
                wait_s = _retry_after_s(error, wait_s)
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                problem = str(error)
            except ValidationError as error:
                raise ConfigError(f"llm.base_url: {self._url} does not answer as a chat endpoint") from error
            if attempt + 1 < _ATTEMPTS:
                _log.warning("%s: %s; again in %.1f s", self._url, problem, wait_s)
                time.sleep(min(wait_s, _LONGEST_WAIT_S))
        raise RunError(f"llm.base_url: no answer from {self._url} after {_ATTEMPTS} attempts: {problem}")

    def _refuse(self, code: int, message: str) -> Refusal:
        """A refused row where only the row can be at fault; otherwise an error."""
        if code in (401, 403):
            raise ConfigError(f"OPENAI_API_KEY: {self._url} refuses the key (HTTP {code}): {message}")
        if code in (404, 405):
            wanted = f"{self._config.llm.model!r} at {self._url}"
            raise ConfigError(f"llm.base_url, llm.model: nothing serves {wanted} (HTTP {code}): {message}")
        if "logprobs" in message:
            raise ConfigError(f"{_NO_LOGPROBS} (HTTP {code}: {message})")
        is_long = "context" in message and ("length" in message or "token" in message)
        reason = Reason.PROMPT_TOO_LONG if is_long else Reason.ENGINE_ERROR
        return Refusal(reason, f"HTTP {code}: {message}")


def _completion(answer: _Answer) -> Completion | Refusal:
    choice = answer.choices[0]
    if choice.finish_reason == "content_filter":
        return Refusal(Reason.ENGINE_ERROR, "content filter")
    finished = choice.finish_reason != "length"
    return Completion(choice.message.content or "", answer.usage.completion_tokens, finished)


def _message(error: urllib.error.HTTPError) -> str:
    """The endpoint's words, as one short line."""
    return " ".join(error.read().decode("utf-8", "replace").split())[:300]


def _retry_after_s(error: urllib.error.HTTPError, otherwise_s: float) -> float:
    try:
        return float(error.headers["Retry-After"])
    except (TypeError, ValueError):
        return otherwise_s
