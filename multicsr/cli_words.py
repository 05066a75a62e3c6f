"""What the commands of `cli.py`, `cli_jobs.py` and `cli_cluster.py` have in common."""

from collections.abc import Callable
from typing import Annotated

import typer

from multicsr.job import guarded

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="section.key=value", help="Override one setting; may be repeated."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, and more logging.")]


def example(*lines: str) -> str:
    """An epilog; a blank line keeps typer from joining the lines."""
    return "Example:\n\n" + "\n\n".join(lines)


def run_and_exit(call: Callable[[], None], debug: bool) -> None:
    """Run a command; expected errors become one line and an exit code."""
    raise typer.Exit(guarded(call, debug=debug))
