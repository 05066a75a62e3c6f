"""The commands before a run: new writes a configuration, check looks at it and at this machine."""

from pathlib import Path
from typing import Annotated

import typer

from multicsr.cli import pipeline
from multicsr.cli.command import command
from multicsr.cli.options import Overrides
from multicsr.config_file import load_with_mistakes
from multicsr.errors import ConfigError
from multicsr.messages.terminal import echo

app = typer.Typer()


@command(
    app,
    pipeline.PANEL,
    "multicsr new --name legal --input triplets.tsv",
    "multicsr new --name tickets --input tickets/ --llm google/flan-t5-xl -o mine.yaml",
)
def new(
    name: Annotated[str, typer.Option(help="Name of the run.")],
    inputs: Annotated[
        list[str], typer.Option("--input", help="File, directory, glob or URI; may be repeated.")
    ],
    llm: Annotated[str | None, typer.Option(help="Directory or Hugging Face id; default: tinylm.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Directory, Hugging Face id or all-MiniLM-L6-v2.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="Directory or s3:// URI; default: runs/NAME.")] = None,
    language: Annotated[str | None, typer.Option(help="Language tag; default: detected.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File to write; default: NAME.yaml.")
    ] = None,
) -> None:
    """Write a commented configuration from what is in the data: format, column, language, lengths.

    A file that exists is never overwritten.
    """
    from multicsr.tools.new import write_config
    from multicsr.tools.new.write import Choices

    choices = Choices(name, inputs, llm, encoder, store, language)
    written = write_config(choices, out or Path(f"{name}.yaml"))
    echo(f"{written}\nnext: multicsr check {written}, then multicsr preview {written}")


@command(
    app,
    pipeline.PANEL,
    "multicsr check",
    "multicsr check runs/demo.yaml",
    "multicsr check runs/demo.yaml --resolved",
)
def check(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="Also check this run.")] = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print every setting with where it comes from; check nothing.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Check this machine, and everything of a configuration that can be checked before its run.

    All problems are listed at once: wrong settings, missing files, columns and models, GPUs, the store.
    """
    from multicsr.tools.check import examine

    if config is None:
        if overrides:
            raise ConfigError("--set has no effect without the YAML file of a run")
        if resolved:
            raise ConfigError("--resolved has no effect without the YAML file of a run")
        examine(None)
    elif resolved:
        from multicsr.tools.resolved import resolved_lines

        for line in resolved_lines(config, overrides or ()):
            echo(line)
    else:
        examine(*load_with_mistakes(config, overrides or ()))
