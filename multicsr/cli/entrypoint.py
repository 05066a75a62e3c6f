"""The code that the command line and the Ray jobs share: progress, errors and exit codes."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.errors import MulticsrError
from multicsr.execution.signals import received, signals_end_command
from multicsr.messages.captured_output import details_of, format_traceback, install_hooks, log_lines
from multicsr.messages.error_chain import describe
from multicsr.messages.foreign_errors import translate_error
from multicsr.messages.terminal import (
    OutputClosed,
    drop_unwritable_output,
    echo,
    echo_details,
    echo_error,
    flush_output,
    open_closed_streams,
)
from multicsr.observability.progress import LineProgress, Progress, TerminalProgress

_STAGE = "stage: "
"""Prefix of the note that names the running stage in an exception."""


@contextmanager
def progress_for_terminal() -> Iterator[Progress]:
    """Show progress as a live bar if standard error is a terminal, else as plain lines.

    An exception that leaves the block gets a note with the name of the running stage.
    """
    progress: LineProgress | TerminalProgress = LineProgress()
    try:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            with TerminalProgress() as progress:
                yield progress
        else:
            yield progress
    except Exception as error:
        if progress.stage:
            error.add_note(f"{_STAGE}{progress.stage}")
        raise


def guarded(call: Callable[[], None], *, debug: bool, command: str = "multicsr") -> int:
    """Run a command and return its exit code. Every exception becomes one line on standard error.

    Only this function catches all exceptions.

    Args:
        call: the command.
        debug: also print tracebacks and more logging.
        command: name of the command, for messages.

    Returns:
        0: success; 1: an error of the environment or of this program; 2: an error in the user's input; 128 +
        N: ended by signal N.
    """
    log_lines(debug=debug)
    with signals_end_command():
        try:
            call()
            flush_output()
        except BaseException as error:  # noqa: BLE001 - see above
            return report(error, debug=debug, command=command)
    return 0


def report(error: BaseException, *, debug: bool, command: str) -> int:
    """Print the exception that ended a command and return the exit code (see `guarded`)."""
    drop_unwritable_output()
    if debug:
        echo_details(format_traceback(error))
    match error:
        case KeyboardInterrupt():
            return _ended_by(received() or signal.SIGINT)
        case SystemExit() if error.code == signal.SIGTERM:  # raised by Ray's handler while it is installed
            return _ended_by(signal.SIGTERM)
        case OutputClosed():
            return 1
        case MulticsrError() if translate_error(error) is error:
            for line in error.args or (type(error).__name__,):
                echo_error(f"error: {line}")
            return error.exit_code
    return _report_foreign(error, command)


def _ended_by(number: int) -> int:
    name = signal.Signals(number).name
    echo_error(f"ended by {name}; run the same command again to go on where it stopped")
    return 128 + number


def _report_foreign(error: BaseException, command: str) -> int:
    """Print an exception of another library, translated if known, and the location of its traceback."""
    known = translate_error(error)
    notes = getattr(error, "__notes__", [])
    stage = next((f", {note}" for note in notes if note.startswith(_STAGE)), "")
    echo_error(f"error: {command}{stage}: {known or describe(error)}{details_of(error)}")
    return known.exit_code if known else 1


def job_main(step: str, argv: Sequence[str] | None = None) -> int:
    """Run a Ray job: `python -m ray_jobs.STEP CONFIG [--set section.key=value]... [--checksum HEX]`.

    Args:
        step: name of a stage, or `refresh`.
        argv: arguments of the command; None: those of the process.

    Returns:
        The exit code (see `guarded`).
    """
    open_closed_streams()
    install_hooks()
    parser = argparse.ArgumentParser(prog=f"python -m ray_jobs.{step}")
    parser.add_argument("config", type=Path, help="YAML file of the run")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="section.key=value")
    parser.add_argument(
        "--checksum", help="of the configuration as it was submitted; another one is an error"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args(argv)

    def call() -> None:
        config = load_config(arguments.config, arguments.overrides, arguments.checksum)
        run_job(step, config)

    return guarded(call, debug=arguments.debug, command=f"ray_jobs.{step}")


def run_job(step: str, config: Config) -> None:
    """Run one job in this process with its progress: a stage, or a refresh run, whose outcome is printed."""
    if step == "refresh":
        from multicsr.pipeline.refresh import refresh
        from multicsr.stages.report.history import as_table

        with progress_for_terminal() as progress:
            refresh_run = refresh(config, progress)
        echo(as_table(refresh_run))
    else:
        from multicsr.pipeline.full_run import run_step

        with progress_for_terminal() as progress:
            run_step(step, config, progress)
