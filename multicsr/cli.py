"""The command line. Each command parses its words, then imports the heavy world and makes one call."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from multicsr import __version__, cli_cluster, cli_jobs
from multicsr.cli_words import Debug, Overrides, example, run_and_exit
from multicsr.config_file import load_config
from multicsr.job import progress_for_terminal

if TYPE_CHECKING:
    from multicsr.store import Store
    from multicsr.versions import Rooms

app = typer.Typer(
    name="multicsr",
    help="Unlabelled sentences in, a better sentence encoder out (MultiCSR, NAACL 2024, on Ray).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
_MAKE = "From sentences to an encoder"
_MEASURE = "What it is worth"
_STORE = "What was made"
_MACHINE = "Machines"

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.")]
StorePlace = Annotated[
    str, typer.Argument(metavar="STORE", help="Directory or s3:// URI, or the YAML file of a run.")
]
VersionNumber = Annotated[
    int | None, typer.Option("--version", min=1, help="Default: the current one; see `multicsr versions`.")
]


def _console() -> Console:
    return Console(highlight=False)


def _store(place: str, overrides: list[str] | None) -> "Store":
    """The store itself, or that of a configuration."""
    from multicsr.errors import ConfigError
    from multicsr.store import Store

    if place.endswith((".yaml", ".yml")):
        return Store.of(load_config(Path(place), overrides or ()))
    if overrides:
        raise ConfigError("--set has no effect on a store; give the YAML file of a run")
    return Store.open(place)


def _rooms(place: str, overrides: list[str] | None, version: int | None) -> "Rooms":
    from multicsr.versions import rooms_of

    return rooms_of(_store(place, overrides), version)


def _run(name: str, config: Path, overrides: list[str] | None, debug: bool) -> None:
    def call() -> None:
        from multicsr.pipeline import run_step

        with progress_for_terminal() as progress:
            run_step(name, load_config(config, overrides or ()), progress)

    run_and_exit(call, debug)


@app.command(rich_help_panel=_MAKE, epilog=example("multicsr run configs/demo.yaml --set generate.omega=0.2"))
def run(config: ConfigPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """All stages: ingest, generate, curate, train, evaluate, report. What is done already is not redone."""

    def call() -> None:
        from multicsr import pipeline
        from multicsr.report import REPORT
        from multicsr.report.table import summary
        from multicsr.train.log import ENCODER
        from multicsr.versions import current

        settings = load_config(config, overrides or ())
        with progress_for_terminal() as progress:
            store = pipeline.run(settings, progress)
        _console().print(summary(current(store)))
        _console().print(f"\nencoder  {store.uri(ENCODER)}\nreport   {store.uri(REPORT)}")

    run_and_exit(call, debug)


@app.command(
    rich_help_panel=_MAKE, epilog=example("multicsr ingest configs/demo.yaml --set input.paths=[my.txt.gz]")
)
def ingest(config: ConfigPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Read, normalise and filter sentences; give each its id."""
    _run("ingest", config, overrides, debug)


@app.command(
    rich_help_panel=_MAKE, epilog=example("multicsr generate configs/demo.yaml --set generate.actors=2")
)
def generate(config: ConfigPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Write an entailment and a contradiction for every sentence, and score both."""
    _run("generate", config, overrides, debug)


Alpha = Annotated[float | None, typer.Option(help="Least score of (premise, entailment).")]
Beta = Annotated[float | None, typer.Option(help="Greatest score of (premise, contradiction).")]
Gamma = Annotated[float | None, typer.Option(help="Least distance between the two scores.")]


@app.command(
    rich_help_panel=_MAKE, epilog=example("multicsr curate configs/demo.yaml --alpha 3.5 --gamma 1.5")
)
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


@app.command(
    rich_help_panel=_MEASURE,
    epilog=example("multicsr sweep configs/demo.yaml --alpha 2,3,4 --beta 2,3 --gamma 0,1,2"),
)
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

    run_and_exit(call, debug)


@app.command(
    rich_help_panel=_MAKE, epilog=example("multicsr train configs/demo.yaml --set train.mask.sigma=0.85")
)
def train(config: ConfigPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Fine-tune the encoder on the curated triplets with the masked loss."""
    _run("train", config, overrides, debug)


@app.command(
    rich_help_panel=_MEASURE,
    epilog=example(
        "multicsr evaluate runs/demo/model all-MiniLM-L6-v2 --data sts/ --json figures.json",
        "multicsr evaluate runs/demo/model --data sts/ --join sick=sick_train,sick_trial,sick_test",
    ),
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

    run_and_exit(call, debug)


@app.command(rich_help_panel=_MEASURE, epilog=example("multicsr report configs/demo.yaml --out demo.html"))
def report(
    store: StorePlace,
    out: Annotated[Path | None, typer.Option(help="Default: report.html in the store.")] = None,
    version: VersionNumber = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Write the report of a version: one HTML file, nothing loaded from outside."""

    def call() -> None:
        from multicsr.report import publish_report, write_report

        rooms = _rooms(store, overrides, version)
        if out is None:
            _console().print(publish_report(rooms))
        else:
            write_report(rooms, out)
            _console().print(str(out))

    run_and_exit(call, debug)


@app.command(
    rich_help_panel=_MEASURE,
    epilog=example("multicsr ablate configs/ablation.yaml --data sts/ --human triplets.tsv.gz --seeds 3"),
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

    run_and_exit(call, debug)


@app.command(rich_help_panel=_MAKE, epilog=example("multicsr refresh configs/nightly.yaml"))
def refresh(config: ConfigPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """A night: write for what is new at the source, train when enough changed, promote what is not worse."""

    def call() -> None:
        from multicsr.refresh import refresh as bring_up_to_date
        from multicsr.report.history import told

        with progress_for_terminal() as progress:
            night = bring_up_to_date(load_config(config, overrides or ()), progress)
        _console().print(told(night))

    run_and_exit(call, debug)


@app.command(
    rich_help_panel=_STORE,
    epilog=example("multicsr versions configs/demo.yaml", "multicsr versions s3://bucket/corpus"),
)
def versions(store: StorePlace, overrides: Overrides = None, debug: Debug = False) -> None:
    """List what was published, newest last, with the rows of every room."""

    def call() -> None:
        from multicsr.report.versions import table

        _console().print(table(_store(store, overrides)))

    run_and_exit(call, debug)


@app.command(
    rich_help_panel=_STORE,
    epilog=example("multicsr rollback configs/demo.yaml", "multicsr rollback configs/demo.yaml --to 3"),
)
def rollback(
    config: ConfigPath,
    to: Annotated[int | None, typer.Option(min=1, help="Version; default: the one before.")] = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Publish the rooms of an earlier version again. Nothing is deleted: it can be undone in the same way."""

    def call() -> None:
        from multicsr.draft import roll_back

        with progress_for_terminal() as progress:
            version = roll_back(load_config(config, overrides or ()), to, progress)
        _console().print(f"version {version.number} is what version {version.restores} was")

    run_and_exit(call, debug)


@app.command(
    rich_help_panel=_STORE,
    epilog=example("multicsr gc configs/demo.yaml", "multicsr gc configs/demo.yaml --keep 5 --delete"),
)
def gc(
    config: ConfigPath,
    keep: Annotated[int, typer.Option(min=1, help="Versions to keep, the newest ones.")] = 10,
    older_than_days: Annotated[float, typer.Option(min=0, help="What is younger stays.")] = 7.0,
    delete: Annotated[bool, typer.Option("--delete", help="Without it nothing is deleted.")] = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Find what no kept version needs: rooms of old versions, remains of killed jobs. Dry run by default."""

    def call() -> None:
        from multicsr.cleanup import clean_up

        settings = load_config(config, overrides or ())
        with progress_for_terminal() as progress:
            found = clean_up(settings, keep, older_than_days * 86400, progress, delete=delete)
        _console().print(found)

    run_and_exit(call, debug)


@app.command(rich_help_panel=_STORE, epilog=example("multicsr fetch s3://bucket/corpus my-encoder"))
def fetch(
    store: StorePlace,
    target: Annotated[Path, typer.Argument(help="Directory that does not exist yet.")],
    version: VersionNumber = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Copy a version's encoder to a local directory, for SentenceTransformer(DIRECTORY)."""

    def call() -> None:
        from multicsr.draft import fetch_encoder

        fetch_encoder(_rooms(store, overrides, version), target)
        _console().print(str(target))

    run_and_exit(call, debug)


@app.command(
    rich_help_panel=_STORE,
    epilog=example("multicsr audit configs/demo.yaml", "multicsr audit s3://bucket/corpus"),
)
def audit(
    store: StorePlace, version: VersionNumber = None, overrides: Overrides = None, debug: Debug = False
) -> None:
    """Recompute every count and checksum of a version from its files; fail on any difference."""

    def call() -> None:
        from multicsr.audit import audit as find_differences
        from multicsr.audit import remarks
        from multicsr.errors import RunError

        rooms = _rooms(store, overrides, version)
        differences = find_differences(rooms)
        for difference in differences:
            _console().print(difference)
        if differences:
            raise RunError(f"{rooms.store.uri()}: {len(differences)} differences; see above")
        for remark in remarks(rooms):
            _console().print(remark)
        _console().print(f"{rooms.store.uri()}: every count and checksum holds")

    run_and_exit(call, debug)


@app.command(rich_help_panel=_STORE, epilog=example("multicsr explain configs/demo.yaml 3f2a"))
def explain(
    store: StorePlace,
    row_id: Annotated[str, typer.Argument(help="A row's id, or the first digits of it.")],
    version: VersionNumber = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Print the life of one row: source, prompts, hypotheses, scores, decision."""

    def call() -> None:
        from multicsr.explain import explain as life_of

        _console().print(life_of(_rooms(store, overrides, version), row_id))

    run_and_exit(call, debug)


@app.command(rich_help_panel=_MACHINE, epilog=example("multicsr doctor", "multicsr doctor configs/demo.yaml"))
def doctor(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="Also check this run.")] = None,
    debug: Debug = False,
) -> None:
    """Check the installation: versions, packages that break others, memory, disk, models, Ray."""

    def call() -> None:
        from multicsr.doctor import examine

        examine(load_config(config) if config else None, _console())

    run_and_exit(call, debug)


cli_jobs.add_to(app)
app.add_typer(cli_cluster.app, name="cluster", rich_help_panel=_MACHINE)


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
