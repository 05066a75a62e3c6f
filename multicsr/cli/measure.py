"""The commands that tell what sentences and encoders are worth: sweep, evaluate, report, ablate."""

from pathlib import Path
from typing import Annotated

import typer

from multicsr.cli.command import command
from multicsr.cli.entrypoint import progress_for_terminal
from multicsr.cli.options import (
    ConfigPath,
    Overrides,
    StorePlace,
    VersionNumber,
    open_version,
    read_settings,
)
from multicsr.messages.terminal import echo

app = typer.Typer()
_PANEL = "What it is worth"


@command(app, _PANEL, "multicsr sweep runs/demo.yaml --alpha 2,3,4 --beta 2,3 --gamma 0,1,2")
def sweep(
    config: ConfigPath,
    alpha: Annotated[
        str | None, typer.Option(help="Comma-separated values; else quartiles of the scores.")
    ] = None,
    beta: Annotated[
        str | None, typer.Option(help="Comma-separated values; else quartiles of the scores.")
    ] = None,
    gamma: Annotated[str | None, typer.Option(help="Comma-separated values; else the median gap.")] = None,
    overrides: Overrides = None,
) -> None:
    """Print how many triplets each combination of thresholds would keep, and rows at the edge of the present.

    Writes nothing.
    """
    from multicsr.stages.curate.edges import edge_lines
    from multicsr.stages.curate.sweep import sweep_table

    settings = read_settings(config, overrides)
    echo(sweep_table(settings, alpha, beta, gamma))
    for line in edge_lines(settings):
        echo(line)


@command(
    app,
    _PANEL,
    "multicsr evaluate runs/demo/encoder all-MiniLM-L6-v2 --data sts/ --json figures.json",
    "multicsr evaluate runs/demo/encoder --data sts/ --join sick=sick_train,sick_trial,sick_test",
)
def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Directory, Hugging Face id or all-MiniLM-L6-v2.")
    ],
    data: Annotated[list[str], typer.Option(help="TSV file, or directory of TSV files; may be repeated.")],
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
    join: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE,FILE", help="Also measure these files as one task.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Sentences encoded at once.")] = 128,
) -> None:
    """Measure encoders: Spearman on STS files (score, sentence1, sentence2), accuracy on triplets."""
    from multicsr.stages.evaluate import (
        PartialEvaluation,
        check_metrics_path,
        evaluate_models,
        render,
        write_metrics,
    )

    if json is not None:
        check_metrics_path(json)
    partial = None
    try:
        with progress_for_terminal() as progress:
            evaluation = evaluate_models(models, data, batch_size, progress, join=join or ())
    except PartialEvaluation as error:
        partial, evaluation = error, error.evaluation
    echo(render(evaluation))
    if json is not None:
        write_metrics(json, evaluation)
    if partial is not None:
        raise partial


@command(app, _PANEL, "multicsr report runs/demo.yaml --out demo.html")
def report(
    store: StorePlace,
    out: Annotated[Path | None, typer.Option(help="Default: report.html in the store.")] = None,
    version: VersionNumber = None,
    overrides: Overrides = None,
) -> None:
    """Write the report of a version: one HTML file, nothing loaded from outside."""
    from multicsr.stages.report import publish_report, write_report

    snapshot = open_version(store, overrides, version)
    if out is None:
        echo(publish_report(snapshot))
    else:
        write_report(snapshot, out)
        echo(str(out))


@command(
    app,
    _PANEL,
    "multicsr ablate configs/ablation.yaml --data sts/ --human triplets.tsv.gz --seeds 3",
)
def ablate(
    config: ConfigPath,
    data: Annotated[list[str], typer.Option(help="STS files or directories to measure on.")],
    human: Annotated[Path, typer.Option(help="TSV of human triplets: anchor, positive, negative.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 3,
    overrides: Overrides = None,
) -> None:
    """Train the same encoder with and without each stage, several seeds each, and print the table."""
    from multicsr.tools.ablate import ablate as run_ablation

    settings = read_settings(config, overrides)
    with progress_for_terminal() as progress:
        table = run_ablation(settings, data=data, human=human, seeds=seeds, progress=progress)
    echo(table)
