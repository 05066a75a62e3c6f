"""Bodies of requests: OpenAI's fields that have an effect here, and ours. Anything else is an error.

Ours are `contrast` (MultiCSR Eq. 2), `draw_key` (the random draws of a row of a job), `labels` (Eq. 3),
`chat_template: false` and `chat_template_kwargs`.
"""

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from multicsr.serve.errors import RequestError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_Name = Annotated[str, Field(min_length=1, max_length=500)]
_Stop = Annotated[str, Field(min_length=1, max_length=500)]
MOST_LOGPROBS = 20
"""Largest number of likeliest tokens at a position, as in OpenAI's protocol."""
_MOST_STOPS = 64


class _Body(BaseModel):
    """Part of a body: an unknown field, a value of another type and an infinite number are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:  # noqa: ANN401 - any JSON
        """Leave out unknown fields that are null: clients send them, and they ask for nothing."""
        if not isinstance(fields, dict):
            return fields
        return {
            name: value for name, value in fields.items() if value is not None or name in cls.model_fields
        }


class TextPart(_Body):
    """Part of the content of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(_Body):
    """Message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def plain(self) -> dict[str, str]:
        """Return role and content as a chat template takes them."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": self.role, "content": text}


Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]


class _ContrastBody(_Body):
    omega: Annotated[float, Field(gt=0, lt=1)]
    """Weight of the logits of the noisy prompt; leave the whole field out for plain decoding."""


class ChatContrast(_ContrastBody):
    """Noisy branch of MultiCSR Eq. 2 for a chat."""

    messages: Messages


class PromptContrast(_ContrastBody):
    """Noisy branch of MultiCSR Eq. 2 for a prompt."""

    prompt: str


class StreamOptions(_Body):
    """Options of a stream."""

    include_usage: bool = False


class _Sampled(_Body):
    """Fields that both paths have."""

    model: str
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=_MOST_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    draw_key: _Name | None = None
    """`ROW_ID:DIRECTION`: with `seed`, the draws of this hypothesis in a job with that seed."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None

    @property
    def heat(self) -> float:
        """Return the temperature, which is 1 in OpenAI's protocol if none is given."""
        return 1.0 if self.temperature is None else self.temperature

    @property
    def stops(self) -> tuple[str, ...]:
        """Return the stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @model_validator(mode="after")
    def _effects(self) -> "_Sampled":
        if self.heat == 0 and (self.top_p or 1) < 1:
            raise ValueError("top_p has no effect at temperature 0")
        if self.draw_key is not None and (self.heat == 0 or self.seed is None):
            raise ValueError("draw_key has no effect without seed and a temperature above 0")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options has no effect without stream")
        return self


class CompletionBody(_Sampled):
    """Body of POST /v1/completions."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    contrast: PromptContrast | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None

    @property
    def text(self) -> str:
        """Return the prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class ChatBody(_Sampled):
    """Body of POST /v1/chat/completions."""

    messages: Messages
    contrast: ChatContrast | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """Newer name of `max_tokens`."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    labels: Annotated[list[_Name], Field(min_length=2, max_length=100)] | None = None
    """Labels whose probabilities are wanted as the answer (Eq. 3); nothing is written then."""
    chat_template: Literal[False] | None = None
    """False: the one message is continued as a plain prompt."""
    chat_template_kwargs: dict[str, bool | int | float | str] = {}

    @model_validator(mode="after")
    def _effects_in_chat(self) -> "ChatBody":
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens are one setting; give one of them")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs has no effect without logprobs")
        if self.logprobs and (self.contrast or self.stream or self.labels or self.heat > 0):
            raise ValueError("logprobs needs temperature 0, and goes with none of contrast, stream, labels")
        if self.chat_template is False and self.chat_template_kwargs:
            raise ValueError("chat_template_kwargs has no effect with chat_template: false")
        chats = (self.messages, self.contrast.messages if self.contrast else self.messages)
        if self.chat_template is False and any(len(each) > 1 or each[0].role != "user" for each in chats):
            raise ValueError("chat_template: false takes one message of the user, which is the prompt")
        return self

    @model_validator(mode="after")
    def _labels_alone(self) -> "ChatBody":
        fields = {"model", "messages", "labels", "chat_template", "chat_template_kwargs", "max_tokens"}
        given = {name for name in self.model_fields_set if getattr(self, name) not in (None, False)}
        if self.labels is not None and (others := sorted(given - fields)):
            raise ValueError(f"{others[0]} has no effect with labels, for which nothing is written")
        if self.labels is not None and self.max_tokens not in (None, 1):
            raise ValueError("max_tokens is 1 with labels: one of them is the answer")
        if self.labels is not None and len({label.strip() for label in self.labels} - {""}) < len(
            self.labels
        ):
            raise ValueError("labels: two of them are the same, or one is empty")
        return self


Body = TypeVar("Body", CompletionBody, ChatBody)


def parse(kind: type[Body], data: bytes, model: str) -> Body:
    """Return the body of a request for this model.

    Raises:
        RequestError: it is not JSON, names another model, or has a field or value without effect.
    """
    try:
        tree = _Raw.model_validate_json(data)
    except ValidationError as error:
        raise _invalid(error, _json(data)) from error
    if tree.model != model:
        message = f"model: {tree.model!r} is not served here; {model!r} is"
        raise RequestError(404, message, param="model", code="model_not_found")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _invalid(error, _json(data)) from error


def _json(data: bytes) -> object:
    """Return the JSON of a body; None if it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


class _Raw(BaseModel):
    """Body of which only the model is read."""

    model: str


def _invalid(error: ValidationError, tree: object) -> RequestError:
    """Return the answer to a body with mistakes, of which the first is described.

    Args:
        error: the mistakes. Of a value that may have several types, each type has its own.
        tree: the JSON of the body.
    """
    found = [(_place(each, tree), each) for each in error.errors(include_url=False, include_input=False)]
    first = found[0][0]
    # The type that fits best has its mistake furthest inside, or one that is not about the type itself.
    of_first = [each for each in found if each[0][: len(first)] == first]
    path, problem = max(of_first, key=lambda each: (len(each[0]), not each[1]["type"].endswith("_type")))
    place = ".".join(map(str, path))
    words = {"extra_forbidden": "has no effect here", "missing": "is missing"}
    message = words.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    param = place or None
    return RequestError(400, f"{place}: {message}" if place else message, param=param)


def _place(mistake: "ErrorDetails", tree: Any) -> tuple[int | str, ...]:  # noqa: ANN401 - any JSON
    """Return the place of a mistake in a body, without the names of types that pydantic puts in between."""
    place: list[int | str] = []
    for each in mistake["loc"]:
        keys = range(len(tree)) if isinstance(tree, list) else tree if isinstance(tree, dict) else ()
        if each in keys:
            place.append(each)
            tree = tree[each]
    return (*place, mistake["loc"][-1]) if mistake["type"] == "missing" else tuple(place)
