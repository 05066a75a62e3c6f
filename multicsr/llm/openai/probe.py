"""Probe of an endpoint before a run, which costs nothing: without messages, the answer is an error."""

from multicsr.config import LLMConfig
from multicsr.errors import RunError
from multicsr.llm.openai.answers import AnswerKind, ChatFailure, permanent_error, read
from multicsr.llm.openai.batch_client import BatchCallError, BatchClient
from multicsr.llm.openai.batch_endpoint import batch_error
from multicsr.llm.openai.client import ChatClient

_PROBE_S = 5.0
"""Timeout of the probe, in seconds."""


def probe(config: LLMConfig) -> None:
    """Raise unless something that may be a chat endpoint answers at `llm.base_url`.

    The only request is POST .../chat/completions, as in a run: an endpoint need not answer any other one.
    With `llm.batch` the batches are listed, too.

    Raises:
        ConfigError: the address, the key or the model is wrong.
        RunError: nothing answers there, or the account is not paid.
    """
    client = ChatClient(config.model_copy(update={"timeout_s": _PROBE_S}))
    try:
        response = client.post({"model": config.model})
    finally:
        client.close()
    if isinstance(response, ChatFailure):
        raise RunError(
            f"llm.base_url: nothing answers there ({response.message}); correct it, or start the server"
        )
    result = read(*response)
    if isinstance(result, ChatFailure) and result.kind is AnswerKind.LASTING:
        raise permanent_error(result, client.url, config.model)
    if config.batch:
        _probe_batches(config)


def _probe_batches(config: LLMConfig) -> None:
    """Raise if the endpoint lists no batches; any temporary failure passes."""
    client = BatchClient(config.model_copy(update={"timeout_s": _PROBE_S}))
    try:
        client.find("")
    except BatchCallError as error:
        if error.failure.kind is not AnswerKind.PASSING:
            raise batch_error(error.failure, client.url, config.model) from error
    finally:
        client.close()
