"""The command line. Each command parses its words, then imports the heavy world and makes one call."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from multicsr import __version__
from multicsr.config import Config, load_config
from multicsr.job import guarded, progress_for_terminal

app = typer.Typer(
    name="multicsr",
    help="Unlabelled sentences in, a better sentence encoder out (MultiCSR, NAACL 2024, on Ray).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="section.key=value", help="Override one setting; may be repeated."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, and more logging.")]


def _example(*lines: str) -> str:
    """An epilog; a blank line keeps typer from joining the lines."""
    return "Example:\n\n" + "\n\n".join(lines)


def _console() -> Console:
    return Console(highlight=False)


def _exit(call: Callable[[], None], debug: bool) -> None:
    raise typer.Exit(guarded(call, debug=debug))


def _run(name: str, config: Path, overrides: list[str] | None, debug: bool) -> None:
    def call() -> None:
        from multicsr.pipeline import run_step

        with progress_for_terminal() as progress:
            run_step(name, load_config(config, overrides or ()), progress)

    _exit(call, debug)


@app.command(epilog=_example("multicsr run configs/demo.yaml --set generate.omega=0.2"))
def run(config: ConfigPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """All stages: ingest, generate, curate, train, evaluate, report. What is done already is not redone."""

    def call() -> None:
        from multicsr import pipeline
        from multicsr.report.table import summary

        settings = load_config(config, overrides or ())
        with progress_for_terminal() as progress:
            store = pipeline.run(settings, progress)
        _console().print(summary(store))
        _console().print(f"\nmodel   {store.uri('model')}\nreport  {store.uri('report.html')}")

    _exit(call, debug)


@app.command(epilog=_example("multicsr ingest configs/demo.yaml --set input.paths=[my.txt.gz]"))
def ingest(config: ConfigPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Read, normalise and filter sentences; give each its id."""
    _run("ingest", config, overrides, debug)


@app.command(epilog=_example("multicsr generate configs/demo.yaml --set generate.actors=2"))
def generate(config: ConfigPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Write an entailment and a contradiction for every sentence, and score both."""
    _run("generate", config, overrides, debug)


Alpha = Annotated[float | None, typer.Option(help="Least score of (premise, entailment).")]
Beta = Annotated[float | None, typer.Option(help="Greatest score of (premise, contradiction).")]
Gamma = Annotated[float | None, typer.Option(help="Least distance between the two scores.")]


@app.command(epilog=_example("multicsr curate configs/demo.yaml --alpha 3.5 --gamma 1.5"))
def curate(
    config: ConfigPath,
    alpha: Alpha = None,
    beta: Beta = None,
    gamma: Gamma = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Keep the triplets whose scores pass the thresholds. Touches no model."""
    given = {"alpha": alpha, "beta": beta, "gamma": gamma}
    thresholds = [f"curate.{name}={value}" for name, value in given.items() if value is not None]
    _run("curate", config, [*(overrides or ()), *thresholds], debug)


@app.command(epilog=_example("multicsr sweep configs/demo.yaml --alpha 2,3,4 --beta 2,3 --gamma 0,1,2"))
def sweep(
    config: ConfigPath,
    alpha: Annotated[str, typer.Option(help="Comma-separated values.")] = "2,2.5,3,3.5,4",
    beta: Annotated[str, typer.Option(help="Comma-separated values.")] = "2,3,4",
    gamma: Annotated[str, typer.Option(help="Comma-separated values.")] = "0,1,2",
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Print how many triplets each combination of thresholds would keep. Writes nothing."""

    def call() -> None:
        from multicsr.pipeline import sweep_table

        settings = load_config(config, overrides or ())
        _console().print(sweep_table(settings, alpha, beta, gamma))

    _exit(call, debug)


@app.command(epilog=_example("multicsr train configs/demo.yaml --set train.mask.sigma=0.85"))
def train(config: ConfigPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Fine-tune the encoder on the curated triplets with the masked loss."""
    _run("train", config, overrides, debug)


@app.command(
    epilog=_example(
        "multicsr evaluate runs/demo/model all-MiniLM-L6-v2 --data sts/ --json figures.json",
        "multicsr evaluate runs/demo/model --data sts/ --join sick=sick_train,sick_trial,sick_test",
    )
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
    debug: Debug = False,
) -> None:
    """Measure encoders: Spearman on STS files (score, sentence1, sentence2), accuracy on triplets."""

    def call() -> None:
        from multicsr.evaluate import evaluate_models, render

        with progress_for_terminal() as progress:
            evaluation = evaluate_models(models, data, batch_size, progress, join=join or ())
        if json is not None:
            json.write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
        _console().print(render(evaluation))

    _exit(call, debug)


@app.command(epilog=_example("multicsr report configs/demo.yaml --out demo.html"))
def report(
    config: ConfigPath,
    out: Annotated[Path | None, typer.Option(help="Default: report.html in the store.")] = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Write the run's report: one HTML file, nothing loaded from outside."""

    def call() -> None:
        from multicsr.report import write_report
        from multicsr.store import Store

        store = Store.open(load_config(config, overrides or ()).store)
        path = out or store.local("report.html")
        write_report(store, path)
        _console().print(str(path))

    _exit(call, debug)


@app.command(
    epilog=_example("multicsr ablate configs/ablation.yaml --data sts/ --human triplets.tsv.gz --seeds 3")
)
def ablate(
    config: ConfigPath,
    data: Annotated[list[str], typer.Option(help="STS files or directories to measure on.")],
    human: Annotated[Path, typer.Option(help="TSV of human triplets: anchor, positive, negative.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 3,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Train the same encoder with and without each stage, several seeds each, and print the table."""

    def call() -> None:
        from multicsr.ablate import ablate as run_ablation

        settings = load_config(config, overrides or ())
        with progress_for_terminal() as progress:
            table = run_ablation(settings, data=data, human=human, seeds=seeds, progress=progress)
        _console().print(table)

    _exit(call, debug)


@app.command(epilog=_example("multicsr audit configs/demo.yaml"))
def audit(config: ConfigPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Recompute every count and checksum of a store from its files; fail on any difference."""

    def call() -> None:
        from multicsr.audit import audit as find_differences
        from multicsr.errors import RunError
        from multicsr.store import Store

        settings: Config = load_config(config, overrides or ())
        differences = find_differences(Store.open(settings.store))
        for difference in differences:
            _console().print(difference)
        if differences:
            raise RunError(f"{settings.store}: {len(differences)} differences; see above")
        _console().print(f"{settings.store}: every count and checksum holds")

    _exit(call, debug)


@app.command(epilog=_example("multicsr explain configs/demo.yaml 3f2a"))
def explain(
    config: ConfigPath,
    row_id: Annotated[str, typer.Argument(help="A row's id, or the first digits of it.")],
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Print the life of one row: source, prompts, hypotheses, scores, decision."""

    def call() -> None:
        from multicsr.explain import explain as life_of
        from multicsr.store import Store

        _console().print(life_of(Store.open(load_config(config, overrides or ()).store), row_id))

    _exit(call, debug)


@app.command(epilog=_example("multicsr doctor", "multicsr doctor configs/demo.yaml"))
def doctor(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="Also check this run.")] = None,
    debug: Debug = False,
) -> None:
    """Check the installation: versions, packages that break others, memory, disk, models, Ray."""

    def call() -> None:
        from multicsr.doctor import examine

        examine(load_config(config) if config else None, _console())

    _exit(call, debug)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        _console().print(f"multicsr {__version__}")
        raise typer.Exit


def main() -> None:
    """Console script."""
    sys.exit(app())


if __name__ == "__main__":
    main()
