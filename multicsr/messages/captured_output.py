"""Output of other code, beside a command's own messages: log records, warnings and uncaught exceptions.

Each becomes one line, or nothing if the user can do nothing about it. Tracebacks are printed only when
logging is at INFO, which `--debug` sets.
"""

import logging
import os
import sys
import tempfile
import threading
import traceback
from types import TracebackType

from multicsr import __version__
from multicsr.messages.error_chain import describe
from multicsr.messages.redaction import redact
from multicsr.messages.terminal import echo_details, echo_error, printable

_log = logging.getLogger(__name__)


def is_debugging() -> bool:
    """Return whether tracebacks are to be printed."""
    return logging.getLogger().isEnabledFor(logging.INFO)


class _LineHandler(logging.Handler):
    """Log handler that prints a record as one line, and a traceback only when debugging."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # the arguments do not fit the message
            text = str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text = f"{text}: {describe(error)}"
        echo_error(f"{record.name}: {text}")
        if error is not None and is_debugging():
            echo_details(format_traceback(error))


def log_lines(*, debug: bool) -> None:
    """Print log records and warnings as lines: from INFO on when debugging, else from WARNING on."""
    root = logging.getLogger()
    if not any(isinstance(handler, _LineHandler) for handler in root.handlers):
        root.addHandler(_LineHandler())
    root.setLevel(logging.INFO if debug else logging.WARNING)
    logging.raiseExceptions = debug
    logging.captureWarnings(True)


def take_over_logger(name: str) -> None:
    """Pass the records of a library that prints them itself to our handler, unless debugging."""
    if not is_debugging():
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def install_hooks() -> None:
    """Install hooks that print one line for an uncaught exception, in any thread, until the process ends."""
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    del kind, trace
    if is_debugging():
        echo_details(format_traceback(error))
    echo_error(f"error: {describe(error)}{details_of(error)}")


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    error = arguments.exc_value
    if error is None or isinstance(error, SystemExit):
        return
    name = arguments.thread.name if arguments.thread else "unknown"
    if is_debugging():
        echo_details(format_traceback(error))
    echo_error(f"warning: thread {name} ended: {describe(error)}{details_of(error)}")


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Log an exception that was raised in `__del__` or at exit.

    Nothing depends on it any more, so it is logged at INFO.
    """
    if unraisable.exc_value is not None:
        _log.info("ignored: %s", describe(unraisable.exc_value))


def format_traceback(error: BaseException) -> str:
    """Return the traceback; type and message alone if memory or stack do not suffice for it."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception as failed:  # noqa: BLE001 - attributes of another library's exception may do anything
        return f"{describe(error)} (no traceback: {type(failed).__name__})"


def details_of(error: BaseException) -> str:
    """Write the traceback to a file that only this user can read; return "; details in FILE".

    If the file cannot be written, the text states that instead.
    """
    try:
        handle, path = tempfile.mkstemp(prefix="multicsr-error-", suffix=".txt")  # mode 0600
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            command = " ".join(sys.argv)
            file.write(f"multicsr {__version__}, Python {sys.version.split()[0]}: {redact(command)}\n")
            file.write(printable(redact(format_traceback(error))))
    except OSError as failed:
        return f"; --debug shows the traceback (no details file: {failed.strerror})"
    return f"; details in {path}"
