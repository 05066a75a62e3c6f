"""The decorator that makes a function a command, and the entry point of the command line."""

import inspect
import signal
import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from typing import Annotated, Any, ParamSpec

import typer

from multicsr.cli.entrypoint import guarded, report
from multicsr.messages.terminal import echo_error, open_closed_streams

P = ParamSpec("P")
_PROGRAM = "multicsr"
_WrongWords: type[Exception] = typer.BadParameter.__mro__[2]
"""The class ClickException of click, or of the private copy of click that newer versions of typer contain."""
_command: ContextVar[str] = ContextVar("command", default=_PROGRAM)
"""Name of the running command, for messages."""
_DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, and more logging.")
    ],
)
"""Option that every command has."""


def command(
    app: typer.Typer, panel: str | None, *examples: str, name: str | None = None
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Return a decorator that adds a function to an app as a command.

    The command has the option --debug, and every exception of the function is printed as one line.

    Args:
        app: app to add the command to.
        panel: heading of the command in the app's help; None for the default one.
        examples: command lines for the end of the command's help.
        name: name of the command; None: that of the function.
    """

    def add(function: Callable[P, None]) -> Callable[P, None]:
        app.command(name, rich_help_panel=panel, epilog=_epilog(examples))(_reporting(function))
        return function

    return add


def _epilog(examples: tuple[str, ...]) -> str:
    """Return the end of a command's help. Blank lines keep typer from joining the lines."""
    from rich.markup import escape  # else rich takes `[my.txt.gz]` for a style

    return "Example:\n\n" + "\n\n".join(map(escape, examples))


def _reporting(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function that calls another one, reports its errors and exits with its exit code."""

    @wraps(function)
    def run(*, debug: bool = False, **options: object) -> None:
        raise typer.Exit(guarded(partial(function, **options), debug=debug, command=_command.get()))

    signature = inspect.signature(function)
    known = signature.replace(parameters=[*signature.parameters.values(), _DEBUG])
    run.__signature__ = known  # type: ignore[attr-defined]  # typer reads the options from it
    run.__annotations__ = {**function.__annotations__, _DEBUG.name: _DEBUG.annotation}
    return run


def run_app(app: typer.Typer) -> int:
    """Run the command line and return its exit code; a wrong option or argument is printed as one line."""
    open_closed_streams()
    _command.set(_name_of_command(app, sys.argv[1:]))
    try:
        code = app(standalone_mode=False, prog_name=_PROGRAM)
    except typer.Abort:
        return 128 + signal.SIGINT
    except _WrongWords as error:
        return _wrong_words(error)
    except Exception as error:  # noqa: BLE001 - before a command has begun, as in `multicsr --help`
        return report(error, debug=False, command=_command.get())
    return int(code or 0)


def _wrong_words(error: Any) -> int:  # noqa: ANN401 - see above
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # the help itself
    else:
        path = error.ctx.command_path if error.ctx else _PROGRAM
        echo_error(f"error: {error.format_message().rstrip('.')}; see `{path} --help`")
    return int(error.exit_code)


def _name_of_command(app: typer.Typer, words: list[str]) -> str:
    """Return the full name of the command that `words` begin with, such as "multicsr cluster up"."""
    command, names = typer.main.get_command(app), [_PROGRAM]
    for word in words:
        if word not in (known := getattr(command, "commands", {})):
            break
        command = known[word]
        names.append(word)
    return " ".join(names)
