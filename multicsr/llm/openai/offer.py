"""Offer of an endpoint to decode pairs (MultiCSR Eq. 2): `multicsr serve` has it in its list of models."""

from pydantic import BaseModel, ValidationError

from multicsr.config import LLMConfig
from multicsr.errors import ConfigError, RunError
from multicsr.llm.openai.answers import AnswerKind, ChatFailure, permanent_error, read_failure
from multicsr.llm.openai.client import ChatClient

PAIRS_REMEDY = "serve the model with `multicsr serve`, or set generate.omega to 0"
_PROBE_S = 5.0
"""Timeout of the check before a run, in seconds."""
_NO_SUCH_PATH = (404, 405, 501)


class _Offer(BaseModel):
    """Offers beyond OpenAI's protocol."""

    contrast: bool = False
    labels: bool = False


class _ModelEntry(BaseModel):
    """Entry of the list of models."""

    id: str
    multicsr: _Offer = _Offer()


class _Models(BaseModel):
    """List of models."""

    data: list[_ModelEntry]


def find_pairs(client: ChatClient, config: LLMConfig) -> ChatFailure | None:
    """Return the temporary failure that hides whether the endpoint offers pairs; None if it does.

    Raises:
        ConfigError: it offers none for `llm.model`, or rejects the key.
        RunError: the account is not paid.
    """
    response = client.get_models()
    if isinstance(response, ChatFailure):
        return response
    failure = read_failure(*response)
    if failure is None:
        if _offers_pairs(response.body, config.model):
            return None
    elif failure.kind is AnswerKind.PASSING:
        return failure
    elif failure.kind is AnswerKind.LASTING and failure.status not in _NO_SUCH_PATH:
        raise permanent_error(failure, client.url, config.model)
    raise ConfigError(
        f"generate.omega: {client.url} does not offer contrast for {config.model!r}; {PAIRS_REMEDY}"
    )


def require_pairs(config: LLMConfig) -> None:
    """Raise unless the endpoint at `llm.base_url` offers pairs; nothing is paid for the question.

    Raises:
        ConfigError: it offers none, or rejects the key.
        RunError: it does not answer now.
    """
    client = ChatClient(config.model_copy(update={"timeout_s": _PROBE_S}))
    try:
        failure = find_pairs(client, config)
    finally:
        client.close()
    if failure is not None:
        raise RunError(f"llm.base_url: {client.url} does not answer now: {failure.message}")


def _offers_pairs(body: bytes, model: str) -> bool:
    """Return True if a list of models offers pairs and label probabilities for a model."""
    try:
        models = _Models.model_validate_json(body).data
    except ValidationError:
        return False
    return any(each.id == model and each.multicsr.contrast and each.multicsr.labels for each in models)
