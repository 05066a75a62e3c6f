"""From a command's words to a call: the few lines that the command line and the Ray jobs share."""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.errors import MulticsrError
from multicsr.progress import LineProgress, Progress, TerminalProgress


@contextmanager
def progress_for_terminal() -> Iterator[Progress]:
    """A live bar when standard error is a terminal, plain lines when it is not."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with TerminalProgress() as bars:
            yield bars
    else:
        yield LineProgress()


def guarded(call: Callable[[], None], *, debug: bool) -> int:
    """Run `call`; turn an expected error into one line on standard error and its exit code."""
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(name)s: %(message)s")
    try:
        call()
    except MulticsrError as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run the same command again to go on where it stopped\n")
        return 130
    return 0


def job_main(step: str, argv: Sequence[str] | None = None) -> int:
    """Entry point of a Ray job: `python -m ray_jobs.STEP CONFIG [--set section.key=value]...`."""
    parser = argparse.ArgumentParser(prog=f"python -m ray_jobs.{step}")
    parser.add_argument("config", type=Path, help="YAML file of the run")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="section.key=value")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args(argv)

    def call() -> None:
        config = load_config(arguments.config, arguments.overrides)
        with progress_for_terminal() as progress:
            run_job(step, config, progress)

    return guarded(call, debug=arguments.debug)


def run_job(step: str, config: Config, progress: Progress) -> None:
    """One job, in this process: a stage, or a whole night."""
    if step == "refresh":
        from multicsr.refresh import refresh

        refresh(config, progress)
    else:
        from multicsr.pipeline import run_step

        run_step(step, config, progress)
