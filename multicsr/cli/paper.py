"""The command that runs a table or figure of the paper: reproduce."""

from pathlib import Path
from typing import Annotated

import typer

from multicsr.cli.command import command
from multicsr.cli.entrypoint import progress_for_terminal
from multicsr.cli.options import Overrides
from multicsr.errors import ConfigError, RunError
from multicsr.messages.terminal import echo

app = typer.Typer()
_PANEL = "What it is worth"


@command(
    app,
    _PANEL,
    "multicsr reproduce --list",
    "multicsr reproduce table-12 --out table-12.md --out table-12.json",
)
def reproduce(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="table-1 to table-13, figure-4 to figure-7.")
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Print a line for each name, and whether it can run.")
    ] = False,
    scale: Annotated[
        str, typer.Option(help="full: the paper's settings; small: those of the demo, and its data.")
    ] = "small",
    llm: Annotated[
        str | None, typer.Option(help="LLM that writes and scores. Default: that of the scale.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Encoder to train. Default: those of the scale.")
    ] = None,
    sentences: Annotated[
        str | None, typer.Option(metavar="FILE", help="Premises. Default at small scale: the demo's.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the sentences of --sentences and --source; text has none.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Sentences: wikipedia or tagalog; may be repeated."),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="File or directory of labelled data; may be repeated.")
    ] = None,
    dev: Annotated[
        str | None, typer.Option(metavar="FILE", help="Labelled data that choose the checkpoint.")
    ] = None,
    labelled: Annotated[
        str | None, typer.Option(metavar="FILE", help="TSV of human triplets: anchor, positive, negative.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible endpoint, for the rows of ChatGPT.")
    ] = None,
    endpoint_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model of that endpoint. Default: gpt-3.5-turbo.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings of each row. Default: 3.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Draw so many sentences. Default: as the paper.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Directory of data and results. Default: runs/reproduce-SCALE.")
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Also write .json, .csv, .md, .tex, or .svg of a figure; may be repeated."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Run a table or figure of the paper, and show its numbers beside those that the paper's text states.

    Each row shows the settings by which it differs from the row above. What is kept is not made again.
    """
    from multicsr.tools.reproduce.registry import entry_named, list_lines

    if list_:
        for line in list_lines():
            echo(line)
        return
    if name is None:
        raise ConfigError("NAME is missing: name a table or figure, or give --list")
    if scale not in ("full", "small"):
        raise ConfigError(f"--scale: {scale!r} is neither full nor small")
    from multicsr.tools.reproduce.output import require_writable, write_outputs
    from multicsr.tools.reproduce.run import reproduce as run_entry
    from multicsr.tools.reproduce.scale import ReproduceOptions
    from multicsr.tools.reproduce.show import ReproductionTable

    entry = entry_named(name)
    require_writable(out or [], entry)
    options = ReproduceOptions(
        scale="full" if scale == "full" else "small",
        store=store or "",
        llm=llm,
        encoder=encoder,
        sources=_sources(sentences, source or []),
        column=column,
        data=data or [],
        dev=dev,
        labelled=labelled,
        endpoint=endpoint,
        endpoint_model=endpoint_model,
        seeds=seeds,
        limit=limit,
        overrides=overrides or [],
    )
    with progress_for_terminal() as progress:
        result = run_entry(entry, options, progress)
    echo(ReproductionTable(result))
    write_outputs(result, out or [])
    if failures := result.failures():
        raise RunError(f"{len(failures)} of {len(result.rows)} rows failed; the reasons stand above")


def _sources(sentences: str | None, named: list[str]) -> dict[str, str]:
    """Return the file of each source of sentences by its name."""
    from multicsr.tools.reproduce.scale import SOURCES

    found = {} if sentences is None else {"premises": sentences}
    for text in named:
        name, equals, path = text.partition("=")
        if not equals or not path or name not in SOURCES:
            raise ConfigError(f"--source {text!r}: write NAME=FILE with one of {', '.join(SOURCES)}")
        if name in found:
            raise ConfigError(f"--source {text!r}: there is a file for {name} already")
        found[name] = path
    return found
