"""The command that checks this machine and a configuration before a run: check."""

from pathlib import Path
from typing import Annotated

import typer

from multicsr.cli.command import command
from multicsr.cli.options import Overrides
from multicsr.config_file import load_with_mistakes
from multicsr.errors import ConfigError

app = typer.Typer()
PANEL = "Machines"


@command(app, PANEL, "multicsr check", "multicsr check runs/demo.yaml")
def check(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="Also check this run.")] = None,
    overrides: Overrides = None,
) -> None:
    """Check this machine, and everything of a configuration that can be checked before its run.

    All problems are listed at once: wrong settings, missing files, columns and models, GPUs, the store.
    """
    from multicsr.tools.check import examine

    if config is None:
        if overrides:
            raise ConfigError("--set has no effect without the YAML file of a run")
        examine(None)
    else:
        examine(*load_with_mistakes(config, overrides or ()))
