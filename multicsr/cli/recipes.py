"""The commands `multicsr recipes list`, `show` and `copy`."""

from pathlib import Path
from typing import Annotated

import typer

from multicsr.cli.command import command
from multicsr.messages.terminal import echo

app = typer.Typer(
    help="Recipes: published methods by name, each as a configuration to start from.", no_args_is_help=True
)
RecipeName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a recipe, from `recipes list`.")]


@command(app, None, "multicsr recipes list", name="list")
def list_all() -> None:
    """List the recipes, one line each."""
    from multicsr.tools.recipes import list_recipes

    for line in list_recipes():
        echo(line)


@command(app, None, "multicsr recipes show multicsr-paper")
def show(name: RecipeName) -> None:
    """Print the source of a recipe, what is exact and what is not, and its settings."""
    from multicsr.tools.recipes import show_recipe

    for line in show_recipe(name):
        echo(line)


@command(app, None, "multicsr recipes copy multicsr-paper mine.yaml")
def copy(
    name: RecipeName,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file to write.")],
) -> None:
    """Write a recipe as a commented configuration for run, preview, check and all other commands.

    A file that exists is never overwritten.
    """
    from multicsr.tools.recipes import copy_recipe, needs_of

    echo(f"{copy_recipe(name, out)}\nto be given by you:")
    for line in needs_of(name):
        echo(f"  {line}")
    echo(f"next: multicsr check {out}")
