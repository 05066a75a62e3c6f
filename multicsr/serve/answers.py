"""Answers in OpenAI's form: whole ones, and the chunks of a stream.

Field `contrast` of an answer repeats the weight that was applied, so that a client can tell this server from
one that ignores what it does not know.
"""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

Tree = dict[str, JsonValue]


@dataclass(frozen=True)
class AnswerForm:
    """Form of the answers to one request."""

    model: str
    is_chat: bool
    omega: float
    """Weight of the noisy branch; 0 if there is none."""
    num_prompt: int
    """Number of tokens of the prompt."""
    num_noisy: int
    """Number of tokens of the noisy prompt; 0 if there is none."""
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_s: int = field(default_factory=lambda: int(time.time()))

    def whole(
        self,
        text: str,
        num_tokens: int,
        finish: str,
        *,
        logprobs: Tree | None = None,
        label_probabilities: Sequence[float] | None = None,
    ) -> Tree:
        """Return the answer that holds a whole text."""
        content: Tree = (
            {"message": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}
        )
        choice: Tree = {"index": 0, **content, "logprobs": logprobs, "finish_reason": finish}
        if label_probabilities is not None:
            choice["label_probabilities"] = list(label_probabilities)
        kind = "chat.completion" if self.is_chat else "text_completion"
        return {**self._head(kind), "choices": [choice], "usage": self.usage(num_tokens)}

    def chunk(self, text: str | None, finish: str | None = None, *, is_first: bool = False) -> Tree:
        """Return the chunk of a stream that holds a piece of the text; None: it holds none."""
        delta: Tree = {"role": "assistant"} if is_first else {}
        if text is not None:
            delta["content"] = text
        content: Tree = {"delta": delta} if self.is_chat else {"text": text or ""}
        choice: Tree = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
        return {**self._chunk_head(), "choices": [choice]}

    def usage_chunk(self, num_tokens: int) -> Tree:
        """Return the last chunk of a stream whose client wants the usage."""
        return {**self._chunk_head(), "choices": [], "usage": self.usage(num_tokens)}

    def usage(self, num_tokens: int) -> Tree:
        """Return the counts of tokens, without the end-of-sequence token."""
        return {
            "prompt_tokens": self.num_prompt,
            "completion_tokens": num_tokens,
            "total_tokens": self.num_prompt + num_tokens,
        }

    def _chunk_head(self) -> Tree:
        return self._head("chat.completion.chunk" if self.is_chat else "text_completion")

    def _head(self, kind: str) -> Tree:
        """Return the fields that all answers have."""
        head: Tree = {
            "id": f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.name}",
            "object": kind,
            "created": self.created_s,
            "model": self.model,
        }
        if self.omega:
            head["contrast"] = {"omega": self.omega, "prompt_tokens": self.num_noisy}
        return head


def token_entry(text: str, logprob: float) -> Tree:
    """Return a token with its log-probability, in OpenAI's form."""
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}


def event(tree: Tree) -> bytes:
    """Return an event of a stream (SSE) that holds JSON."""
    return f"data: {json.dumps(tree, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
"""Last event of a stream."""
