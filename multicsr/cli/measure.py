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
    "multicsr evaluate runs/demo/encoder --data retrieval/ --no-cache",
)
def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Directory, Hugging Face id or all-MiniLM-L6-v2.")
    ],
    data: Annotated[
        list[str] | None, typer.Option(help="File or directory of labelled data; may be repeated.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Task of mteb with its data in the cache.")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Further kind of tasks, of another package; may be repeated."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file, as JSON.")] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Also write them to this file: .json, .csv, .md or .tex; may be repeated."),
    ] = None,
    join: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE,FILE", help="Also measure these files as one task.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Sentences encoded at once.")] = 128,
    cache: Annotated[
        bool, typer.Option(help="Take results that are known from before, and keep new ones.")
    ] = True,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the encoders.")
    ] = False,
) -> None:
    """Measure encoders on labelled data: STS, triplets, retrieval, changed meaning and further kinds.

    Prints first which tasks the data hold, and which files are not measured.
    """
    from multicsr.errors import ConfigError, RunError
    from multicsr.messages.extras import require_extra
    from multicsr.models.resolve import require_models
    from multicsr.stages.evaluate import (
        PartialEvaluation,
        find_tasks,
        measure_models,
        outputs,
        parse_joins,
        render,
        saved,
        user_cache,
        verdicts,
    )

    if kind and not data:
        raise ConfigError("--kind has no effect without --data")
    require_extra("train", "an evaluation")
    files = outputs(json, out or ())
    require_models(models, "encoder")
    found = find_tasks(
        data or (), parse_joins(join or ()), task or (), kinds=kind or (), lets_invalid_pass=True
    )
    for line in found.describe():
        echo(line)
    known = user_cache() if cache else None
    partial = None
    try:
        with progress_for_terminal() as progress:
            candidates = [saved(model, trust_remote_code=trust_remote_code) for model in models]
            evaluation = measure_models(candidates, found, batch_size, progress, known)
    except PartialEvaluation as error:
        partial, evaluation = error, error.evaluation
    echo(render(evaluation))
    for verdict in verdicts(evaluation):
        echo(verdict)
    for file in files:
        file.write(evaluation)
    failures = [*(partial.args if partial else ()), *found.unusable_files()]
    if failures:
        raise RunError(*failures)


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
    "multicsr ablate runs/demo.yaml --set train.steps=40 --data sts/ --no-stages --baselines",
)
def ablate(
    config: ConfigPath,
    data: Annotated[list[str], typer.Option(help="STS files or directories to measure on.")],
    human: Annotated[
        Path | None, typer.Option(help="TSV of human triplets, to train on too: anchor, positive, negative.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 3,
    stages: Annotated[bool, typer.Option(help="Take the stages away one after another.")] = True,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Add the mean of input embeddings, whitening, SimCSE, and sentence-transformers' losses.",
        ),
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Train the same encoder with and without each stage, several seeds each, and print the table.

    Every variant is compared with the published encoder, over examples and seeds.
    """
    from multicsr.tools.ablate import ablate as run_ablation

    settings = read_settings(config, overrides)
    with progress_for_terminal() as progress:
        table = run_ablation(
            settings,
            data=data,
            seeds=seeds,
            progress=progress,
            human=human,
            stages=stages,
            baselines=baselines,
        )
    echo(table)
