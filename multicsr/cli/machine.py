"""The command that checks this machine and a configuration before a run: check."""

from pathlib import Path
from typing import Annotated

import typer

from multicsr.cli.command import command
from multicsr.config_file import load_config

app = typer.Typer()
PANEL = "Machines"


@command(app, PANEL, "multicsr check", "multicsr check runs/demo.yaml")
def check(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="Also check this run.")] = None,
) -> None:
    """Check this machine, and everything of a configuration that can be checked before its run."""
    from multicsr.tools.check import examine

    examine(load_config(config) if config else None)
