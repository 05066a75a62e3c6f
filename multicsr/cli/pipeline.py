"""The commands that run stages: preview, run, demo, ingest, generate, curate, train, profile, refresh."""

from pathlib import Path
from typing import Annotated

import typer

from multicsr.cli.command import command
from multicsr.cli.entrypoint import progress_for_terminal, run_job
from multicsr.cli.options import ConfigPath, DropLeaks, Overrides, read_settings
from multicsr.messages.terminal import echo

app = typer.Typer()
PANEL = "From sentences to an encoder"

Alpha = Annotated[float | None, typer.Option(help="Least score of (premise, entailment).")]
Beta = Annotated[float | None, typer.Option(help="Greatest score of (premise, contradiction).")]
Gamma = Annotated[float | None, typer.Option(help="Least distance between the two scores.")]


@command(app, PANEL, "multicsr preview runs/demo.yaml", "multicsr preview runs/demo.yaml --rows 200")
def preview(
    config: ConfigPath,
    rows: Annotated[int, typer.Option(min=1, max=5_000, help="Sentences for the LLM.")] = 48,
    overrides: Overrides = None,
) -> None:
    """Put a few rows through all that costs, up to curation, and show samples, shares and advice.

    Publishes nothing. The run that follows does not write these rows again.
    """
    from multicsr.tools.preview import lines
    from multicsr.tools.preview import preview as look_ahead

    with progress_for_terminal() as progress:
        found = look_ahead(read_settings(config, overrides), rows, progress)
    for line in lines(found):
        echo(line)


@command(
    app,
    PANEL,
    "multicsr premises runs/demo.yaml --rows 100 --out premises",
)
def premises(
    config: ConfigPath,
    rows: Annotated[int, typer.Option(min=1, help="Number of sentences, rounded up to hundreds.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write into; default: input.paths.")] = None,
    topics: Annotated[
        Path | None, typer.Option(help="YAML file of genres and topics; default: the shipped one.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Mass of nucleus sampling.")] = 0.9,
    overrides: Overrides = None,
) -> None:
    """Let the LLM write sentences by genre and topic, for a run that has no corpus.

    Files that are there are not written again, so that a killed command goes on.
    """
    from multicsr.tools.premises import write_premises

    with progress_for_terminal() as progress:
        folder = write_premises(
            read_settings(config, overrides),
            rows,
            progress,
            out=out,
            topics=topics,
            temperature=temperature,
            top_p=top_p,
        )
    echo(str(folder))


@command(app, PANEL, "multicsr run runs/demo.yaml --set generate.omega=0.2")
def run(config: ConfigPath, drop_leaks: DropLeaks = False, overrides: Overrides = None) -> None:
    """Run all stages: ingest, generate, curate, train, evaluate, report. Finished work is not redone."""
    from multicsr.artifacts import ENCODER
    from multicsr.pipeline import full_run
    from multicsr.stages.report import REPORT
    from multicsr.stages.report.table import summary
    from multicsr.storage.versions import current

    settings = read_settings(config, overrides, drop_leaks)
    with progress_for_terminal() as progress:
        store = full_run.run(settings, progress)
    echo(summary(current(store)))
    echo(f"\nencoder  {store.uri(ENCODER)}\nreport   {store.uri(REPORT)}")


@command(app, PANEL, "multicsr demo", "multicsr demo --out /tmp/multicsr --set generate.omega=0.2")
def demo(
    out: Annotated[Path, typer.Option(help="Directory to write into.")] = Path("runs"),
    overrides: Overrides = None,
) -> None:
    """Run all stages on 3,300 real sentences that come with this package, in a few minutes on two cores."""
    from multicsr.tools.demo import write_demo_config

    config = write_demo_config(out)
    echo(f"configuration  {config}")
    run(config, overrides=overrides)


@command(app, PANEL, "multicsr ingest runs/demo.yaml --set ingest.max_words=20")
def ingest(config: ConfigPath, overrides: Overrides = None) -> None:
    """Read, normalise and filter sentences; give each its id."""
    _run_stage("ingest", config, overrides)


@command(
    app,
    PANEL,
    "multicsr generate runs/demo.yaml --set generate.actors=2",
    "multicsr generate runs/demo.yaml --drop-leaks",
)
def generate(config: ConfigPath, drop_leaks: DropLeaks = False, overrides: Overrides = None) -> None:
    """Write an entailment and a contradiction for every sentence, and score both."""
    _run_stage("generate", config, overrides, drop_leaks)


@command(app, PANEL, "multicsr curate runs/demo.yaml --alpha 3.5 --gamma 1.5")
def curate(
    config: ConfigPath,
    alpha: Alpha = None,
    beta: Beta = None,
    gamma: Gamma = None,
    overrides: Overrides = None,
) -> None:
    """Keep the triplets whose scores pass the thresholds. Touches no model."""
    given = {"alpha": alpha, "beta": beta, "gamma": gamma}
    thresholds = [f"curate.{name}={value}" for name, value in given.items() if value is not None]
    _run_stage("curate", config, [*(overrides or ()), *thresholds])


@command(app, PANEL, "multicsr train runs/demo.yaml --set train.learning_rate=0.00005")
def train(config: ConfigPath, drop_leaks: DropLeaks = False, overrides: Overrides = None) -> None:
    """Fine-tune the encoder on the curated triplets with the masked loss."""
    _run_stage("train", config, overrides, drop_leaks)


@command(
    app,
    PANEL,
    "multicsr profile curate runs/demo.yaml --out profiles/curate --set curate.alpha=2.5",
    "multicsr profile train runs/demo.yaml --out profiles/train --seconds 60 --set seed=7",
)
def profile(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="ingest, generate, curate, train, evaluate.")],
    config: ConfigPath,
    out: Annotated[Path, typer.Option(help="New or empty folder for timeline, traces and page.")],
    seconds: Annotated[
        float, typer.Option(min=1, max=600, help="Longest recorded time of work of one process.")
    ] = 30,
    overrides: Overrides = None,
) -> None:
    """Run one stage and show what its time went to: Ray's timeline, torch's traces, a page that reads them.

    Results are kept as after the stage's own command, and finished work is not redone.
    """
    from multicsr.tools.profile import profile as run_profiled

    with progress_for_terminal() as progress:
        page = run_profiled(stage, read_settings(config, overrides), out, seconds, progress)
    echo(f"{page}\n{out / 'reading.md'}")


@command(app, PANEL, "multicsr refresh configs/nightly.yaml")
def refresh(config: ConfigPath, overrides: Overrides = None) -> None:
    """Update the store: generate for new sentences, retrain if enough changed, publish if no metric fell."""
    run_job("refresh", read_settings(config, overrides))


def _run_stage(name: str, config: ConfigPath, overrides: list[str] | None, drop_leaks: bool = False) -> None:
    run_job(name, read_settings(config, overrides, drop_leaks))
