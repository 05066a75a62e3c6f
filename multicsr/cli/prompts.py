"""The commands `multicsr prompts list`, `show` and `try`."""

from typing import Annotated

import typer

from multicsr.cli.command import command
from multicsr.cli.entrypoint import progress_for_terminal
from multicsr.cli.options import ConfigPath, Overrides, read_settings
from multicsr.errors import ConfigError
from multicsr.messages.terminal import echo

app = typer.Typer(help="Prompt sets: which there are, and which suits an LLM.", no_args_is_help=True)


@command(app, None, "multicsr prompts list", name="list")
def list_all() -> None:
    """List the prompt sets that ship, for `generate.prompts`."""
    from multicsr.tools.prompt_sets import list_sets

    for line in list_sets():
        echo(line)


@command(app, None, "multicsr prompts show fewshot")
def show(name: Annotated[str, typer.Argument(metavar="SET", help="A shipped set or a YAML file.")]) -> None:
    """Print every prompt of a set, filled with an example."""
    from multicsr.tools.prompt_sets import show_set

    for line in show_set(name):
        echo(line)


@command(app, None, "multicsr prompts try runs/demo.yaml --rows 20 --sets syncse,fewshot", name="try")
def try_sets(
    config: ConfigPath,
    rows: Annotated[int, typer.Option(min=1, help="Number of sentences.")] = 20,
    sets: Annotated[str, typer.Option(help="Comma-separated shipped sets or YAML files.")] = "syncse,fewshot",
    overrides: Overrides = None,
) -> None:
    """Write the same few rows with several prompt sets, and compare yield, junk and scores.

    A run that uses one of the sets takes its rows from the LLM cache.
    """
    from multicsr.tools.prompt_trial import try_sets as write_with_each

    names = [name.strip() for name in sets.split(",")]
    if len(set(names)) < len(names) or not all(names):
        raise ConfigError(f"--sets {sets}: give the names of different prompt sets, such as syncse,fewshot")
    with progress_for_terminal() as progress:
        tried = write_with_each(read_settings(config, overrides), names, rows, progress)
    for line in tried.samples():
        echo(line)
    echo("")
    echo(tried.figures())
