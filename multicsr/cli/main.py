"""The command line. A command imports slow modules when it runs, so that help and errors come at once."""

from functools import partial
from typing import Annotated

import typer

from multicsr import __version__
from multicsr.cli import (
    cluster,
    jobs,
    labels,
    machine,
    measure,
    paper,
    pipeline,
    prompts,
    publish,
    recipes,
    serve,
    store,
)
from multicsr.cli.command import run_app
from multicsr.cli.process import run_process
from multicsr.messages.captured_output import install_hooks
from multicsr.messages.terminal import echo

app = typer.Typer(
    name="multicsr",
    help="Unlabelled sentences in, a better sentence encoder out (MultiCSR, NAACL 2024, on Ray).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(machine.app)
app.add_typer(pipeline.app)
app.add_typer(recipes.app, name="recipes", rich_help_panel=pipeline.PANEL)
app.add_typer(prompts.app, name="prompts", rich_help_panel=pipeline.PANEL)
app.add_typer(serve.app)
app.add_typer(measure.app)
app.add_typer(paper.app)
app.add_typer(labels.app)
app.add_typer(labels.task_app, name="task", rich_help_panel=labels.PANEL)
app.add_typer(store.app)
app.add_typer(publish.app)
app.add_typer(jobs.app)
app.add_typer(cluster.app, name="cluster", rich_help_panel=jobs.PANEL)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        echo(f"multicsr {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the console script `multicsr` and exit with its exit code."""
    install_hooks()
    run_process(partial(run_app, app))


if __name__ == "__main__":
    main()
