"""Output to the terminal: the only module that writes to standard output and standard error.

Part of the printed text comes from outside: text of an LLM, names of files, messages of servers. Printed
unchanged, it could move the cursor, change the window's title, or hide or reorder other text. So every
control character is shown as an escape, and no text is read as rich's markup: `[x]` is printed as `[x]`.
"""

import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from multicsr.messages.redaction import redact

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_LONGEST_LINE = 4_000
"""Greatest length in characters of a message on one line; servers quote whole pages."""

_LONGEST_TEXT = 100_000
"""Greatest number of characters of a message that are processed."""
_WIDEST = 100_000
"""Greatest width in characters of a table in a pipe or file."""

# C0, DEL and C1; directions, which reorder what a reader sees; line and paragraph separators; invisible
# characters of format (the joiners U+200C and U+200D stay: Persian and emoji need them); lone surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u00ad\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_STYLE = re.compile("\x1b\\[[0-9;]*m")
_TRACEBACK = "Traceback (most recent call last)"


class OutputClosed(Exception):
    """Error: the reader of standard output has closed it, as in `multicsr versions | head -1`."""


def printable(text: str, keep: str = "\n\t") -> str:
    r"""Return `text` with everything that is not plain text as an escape such as `\x1b` or `\u202e`.

    Args:
        text: text from outside.
        keep: control characters that stay as they are.
    """
    return _UNPRINTABLE.sub(lambda found: _escape(found[0], keep), text)


def _escape(character: str, keep: str) -> str:
    if character in keep:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str) -> str:
    """Return a message of a library or server on one line: printable, without secrets, of bounded length.

    If the message quotes a traceback, only the line that names the exception is kept.
    """
    text = _STYLE.sub("", text)
    if _TRACEBACK in text or text.startswith("ray::"):
        text = _raised(text)
    text = text[:_LONGEST_TEXT]
    line = printable(" ".join(redact(text).split()), keep="")
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."


def _raised(text: str) -> str:
    """Return the last line of a quoted traceback that is not indented: `ValueError: ...`."""
    lines = [line.strip() for line in text.splitlines() if line and not line[0].isspace()]
    named = [line for line in lines if re.fullmatch(r"[A-Za-z_][\w.]*(?:: .*)?", line)]
    last = (named or lines or [""])[-1]
    return last.replace(_TRACEBACK, "").strip(" :") or "an error without a message"


def echo(content: "RenderableType" = "") -> None:
    """Print text or a table to standard output; control characters are escaped.

    Raises:
        OutputClosed: the reader has closed standard output.
    """
    if not isinstance(content, str):
        target = console()
        if not sys.stdout.isatty():  # a pipe or file has no 80 columns: names and numbers stay whole
            widest = target.options.update(max_width=_WIDEST)
            target.width = max(target.width, target.measure(content, options=widest).maximum)
        target.print(content)
        return
    try:
        _write(sys.stdout, f"{printable(content)}\n")
    except BrokenPipeError as error:
        raise OutputClosed from error


def open_closed_streams() -> None:
    """Let standard input, output and error lead nowhere where the caller has closed them.

    Otherwise the next file that is opened would get the number of such a stream, and output of a library
    would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the smallest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def flush_output() -> None:
    """Write the buffered standard output now, so that a full disk still decides the exit code.

    Raises:
        OutputClosed: the reader has closed standard output.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosed from error


def drop_unwritable_output() -> None:
    """Discard buffered output that cannot be written: Python would try again at exit, and fail."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def echo_log(text: str) -> None:
    """Print part of a job's log, without its colours."""
    echo(_STYLE.sub("", text).replace("\r\n", "\n").rstrip("\n"))


def echo_error(text: str) -> None:
    """Print a line to standard error."""
    with suppress(OSError, ValueError):  # standard error is closed or full: the error cannot be reported
        _write(sys.stderr, f"{one_line(text)}\n")


def echo_progress(stream: IO[str], text: str) -> None:
    """Print a line about the progress of a stage to `stream`."""
    _write(stream, f"{printable(redact(text), keep='')}\n")


def echo_details(text: str) -> None:
    """Print many lines, such as a traceback, to standard error."""
    with suppress(OSError, ValueError):
        _write(sys.stderr, f"{printable(redact(text))}\n")


def _write(stream: IO[str], text: str) -> None:
    """Write text; a character that the stream's encoding lacks is written as an escape."""
    stream.write(_encodable(text, getattr(stream, "encoding", None) or "utf-8"))
    stream.flush()


def _encodable(text: str, encoding: str) -> str:
    return text.encode(encoding, "backslashreplace").decode(encoding)


def console(*, stderr: bool = False) -> "Console":
    """Return a console for tables and bars that escapes control characters and reads no markup."""
    from rich.console import Console
    from rich.segment import Segment
    from rich.text import Text

    class _Escaping(Console):
        """Console that escapes strings before their width is measured, and all other output."""

        def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - as rich has it
            return super().render_str(self._shown(text), **options)

        def on_broken_pipe(self) -> None:
            raise OutputClosed

        def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:  # noqa: ANN401
            for segment in super().render(*arguments, **options):
                yield segment if segment.control else segment._replace(text=self._shown(segment.text))

        def _shown(self, text: str) -> str:
            return _encodable(printable(text), self.encoding)

    return _Escaping(stderr=stderr, highlight=False, markup=False, emoji=False)
