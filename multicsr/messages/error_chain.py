"""Inspection of other libraries' exceptions, without importing the libraries."""

import re
from collections.abc import Iterator

from multicsr.messages.terminal import one_line


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if there is no message.

    Libraries append details in further lines.
    """
    return str(error).strip().partition("\n")[0] or type(error).__name__


def error_chain(error: BaseException, *, context: bool = False) -> Iterator[BaseException]:
    """Yield an exception and those that it wraps or was raised from, outermost first, each once.

    Args:
        error: the outermost exception.
        context: also follow exceptions during whose handling one was raised. They may be unrelated.
    """
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting = [*_wrapped(each), each.__cause__, *waiting]
        if (context or is_of(each, "boto3")) and not each.__suppress_context__:
            waiting.append(each.__context__)


def _wrapped(error: BaseException) -> Iterator[object]:
    """Yield the exceptions that another one carries: those of Ray, urllib3 and botocore, and groups."""
    yield getattr(error, "cause", None)
    yield from _carried_by_ray(error)
    yield getattr(error, "reason", None)
    yield from error.args
    if is_of(error, "botocore"):
        yield (getattr(error, "kwargs", None) or {}).get("error")
    if isinstance(error, BaseExceptionGroup):
        yield from error.exceptions


def _carried_by_ray(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that a Ray task, a worker or the controller of a Ray training raised."""
    if not is_of(error, "ray"):
        return
    failures = getattr(error, "worker_failures", None) or {}
    names = ("cause", "controller_failure", "_base_exc")
    for each in (*(getattr(error, name, None) for name in names), *failures.values()):
        if isinstance(each, BaseException):
            yield each


def is_of(error: BaseException, package: str) -> bool:
    """Return whether a class of the exception is defined in `package`."""
    return any(kind.__module__.partition(".")[0] == package for kind in type(error).__mro__)


def class_names(error: BaseException) -> set[str]:
    """Return the names of the exception's class and of its bases."""
    return {kind.__name__ for kind in type(error).__mro__}


def describe(error: BaseException) -> str:
    """Return type and message of an exception on one line."""
    if "UserCodeException" in class_names(error):
        return f"{one_line(_quoted(error))} (in a Ray worker)"
    inner = error
    while (carried := next(_carried_by_ray(inner), None)) is not None:
        inner = carried
    name, message = type(inner).__name__, message_of(inner)
    line = one_line(f"{name}: {message}" if message else name)
    return line if inner is error else f"{line} (in a Ray worker)"


def _quoted(error: BaseException) -> str:
    """Return the exception that code under Ray Data raised, as text.

    Only the traceback in the text of Ray's exception holds it.
    """
    first, *others = str(error).splitlines() or [type(error).__name__]
    raised = (line for line in others if line and not line[0].isspace())
    return next(raised, first) if "ray::" in first else first


def message_of(error: BaseException) -> str:
    """Return the message on one line, also where `__str__` itself fails."""
    try:
        return one_line(str(error))
    except Exception as broken:  # noqa: BLE001 - `__str__` of another library's exception may do anything
        return f"its message cannot be shown ({type(broken).__name__})"


def first_sentence(error: BaseException) -> str:
    """Return the important part of a message: a quoted traceback's exception, or the first sentence."""
    text = message_of(error)
    return re.split(r"(?<=[a-z)'\"][.!?]) ", text, maxsplit=1)[0].rstrip(".")
