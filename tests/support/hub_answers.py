"""Answers in place of the model hub, for what `huggingface_hub` requests in this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from huggingface_hub import set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory

httpx = import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
"""The HTTP library of the installed huggingface_hub."""


@contextmanager
def hub_answers(answer: Callable[[Any], Any]) -> Iterator[None]:
    """Let `answer` give the response to every request in the block; then requests go out as before.

    The library's own factory is set again: its clients alone refuse requests in offline mode.
    """
    set_client_factory(lambda: httpx.Client(transport=httpx.MockTransport(answer)))
    try:
        yield
    finally:
        set_client_factory(default_client_factory)
