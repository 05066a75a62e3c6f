"""One exception for all errors of third-party parsers.

An error rejects the record that caused it; the job goes on.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from multicsr.errors import MulticsrError

_SHOWN_CHARACTERS = 200


class ParserFailed(Exception):
    """Failure of a parser on one record; the message contains the original error."""


@contextmanager
def parser_errors(parser: str) -> Iterator[None]:
    """Convert every exception of the block to ParserFailed, including panics of parsers written in Rust.

    MulticsrError, MemoryError and exceptions that end a process (Ctrl-C, SystemExit) pass unchanged.

    Args:
        parser: first words of the message, such as "the sentence splitter fails".

    Raises:
        ParserFailed: the block raised any other exception.
    """
    try:
        yield
    except (MulticsrError, MemoryError):
        raise
    except Exception as error:
        raise ParserFailed(_described(parser, error)) from error
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise ParserFailed(_described(parser, error)) from error


def _is_panic(error: BaseException) -> bool:
    """Return whether the error is a PanicException of pyo3.

    It is not a subclass of Exception, and its class cannot be imported.
    """
    return type(error).__module__ == "pyo3_runtime"


def _described(parser: str, error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0][:_SHOWN_CHARACTERS]
    # The message may quote the record, which may contain half of a surrogate pair.
    return f"{parser}: {type(error).__name__}: {text}".encode("utf-8", "backslashreplace").decode()
