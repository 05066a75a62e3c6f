"""The commands on a store: versions, rollback, gc, fetch, audit, explain."""

from pathlib import Path
from typing import Annotated

import typer

from multicsr.cli.command import command
from multicsr.cli.entrypoint import progress_for_terminal
from multicsr.cli.options import (
    AsJson,
    ConfigPath,
    Overrides,
    StorePlace,
    VersionNumber,
    echo_json,
    open_store,
    open_version,
    read_settings,
)
from multicsr.errors import RunError
from multicsr.messages.terminal import echo

app = typer.Typer()
PANEL = "What was made"
_S_PER_DAY = 86400


@command(app, PANEL, "multicsr versions runs/demo.yaml", "multicsr versions s3://bucket/corpus")
def versions(store: StorePlace, overrides: Overrides = None, json: AsJson = False) -> None:
    """List what was published, newest last, with the rows of every artifact."""
    from multicsr.stages.report.versions import records, table

    opened = open_store(store, overrides)
    if json:
        echo_json(records(opened))
    else:
        echo(table(opened))


@command(app, PANEL, "multicsr rollback runs/demo.yaml", "multicsr rollback runs/demo.yaml --to 3")
def rollback(
    config: ConfigPath,
    to: Annotated[int | None, typer.Option(min=1, help="Version; default: the one before.")] = None,
    overrides: Overrides = None,
) -> None:
    """Publish the artifacts of an earlier version again. Nothing is deleted: a rollback can be undone."""
    from multicsr.storage.transaction import roll_back

    with progress_for_terminal() as progress:
        version = roll_back(read_settings(config, overrides), to, progress)
    echo(f"version {version.number} is what version {version.restores} was")


@command(app, PANEL, "multicsr gc runs/demo.yaml", "multicsr gc runs/demo.yaml --keep 5 --delete")
def gc(
    config: ConfigPath,
    keep: Annotated[int, typer.Option(min=1, help="Versions to keep, the newest ones.")] = 10,
    older_than_days: Annotated[
        float, typer.Option(min=0, help="What was current, or was written, later than that stays.")
    ] = 7.0,
    delete: Annotated[bool, typer.Option("--delete", help="Without it nothing is deleted.")] = False,
    unused_llm_output: Annotated[
        bool,
        typer.Option("--unused-llm-output", help="Also what the LLM wrote for other settings or sentences."),
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Find what no kept version needs: old artifacts, remains of killed jobs. Dry run by default."""
    from multicsr.tools.gc import clean_up

    settings = read_settings(config, overrides)
    with progress_for_terminal() as progress:
        found = clean_up(
            settings,
            keep,
            older_than_days * _S_PER_DAY,
            progress,
            delete=delete,
            unused_llm_output=unused_llm_output,
        )
    echo(found)


@command(app, PANEL, "multicsr fetch s3://bucket/corpus my-encoder")
def fetch(
    store: StorePlace,
    target: Annotated[Path, typer.Argument(help="Directory that does not exist yet.")],
    version: VersionNumber = None,
    overrides: Overrides = None,
) -> None:
    """Copy a version's encoder to a local directory, for SentenceTransformer(DIRECTORY).

    Its card (README.md) has the data, the figures and the thresholds of the version.
    """
    from multicsr.config import CardConfig
    from multicsr.tools.fetch import fetch_encoder

    is_config = store.endswith((".yaml", ".yml"))
    card = read_settings(Path(store), overrides).card if is_config else CardConfig()
    fetch_encoder(open_version(store, overrides, version), target, card)
    echo(str(target))


@command(app, PANEL, "multicsr audit runs/demo.yaml", "multicsr audit s3://bucket/corpus")
def audit(store: StorePlace, version: VersionNumber = None, overrides: Overrides = None) -> None:
    """Recompute every count and checksum of a version from its files; fail on any difference."""
    from multicsr.tools.audit import audit as find_differences
    from multicsr.tools.audit import remarks

    snapshot = open_version(store, overrides, version)
    differences = find_differences(snapshot)
    for difference in differences:
        echo(difference)
    if differences:
        raise RunError(f"{snapshot.store.uri()}: {len(differences)} differences; see above")
    for remark in remarks(snapshot):
        echo(remark)
    echo(f"{snapshot.store.uri()}: every count and checksum holds")


@command(app, PANEL, "multicsr explain runs/demo.yaml 5ab1")
def explain(
    store: StorePlace,
    row_id: Annotated[str, typer.Argument(help="A row's id, or the first digits of it.")],
    version: VersionNumber = None,
    overrides: Overrides = None,
) -> None:
    """Print the life of one row: source, prompts, hypotheses, scores, decision."""
    from multicsr.tools.explain import explain as explain_row

    echo(explain_row(open_version(store, overrides, version), row_id))
