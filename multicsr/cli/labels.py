"""The commands that make evaluation data of one's own: task make, label."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multicsr.cli.command import command
from multicsr.cli.options import Overrides, read_settings
from multicsr.messages.terminal import echo

if TYPE_CHECKING:
    from multicsr.tools.task.table import Part

app = typer.Typer()
task_app = typer.Typer(help="Tasks for `multicsr evaluate` of your own data.", no_args_is_help=True)
PANEL = "What it is worth"


@command(
    task_app,
    None,
    "multicsr task make clicks.csv --out tasks/search",
    "multicsr task make duplicates.csv --out tasks/duplicates --text title --group topic --test 0.5",
)
def make(
    table: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or TSV file of clicks or duplicates.")],
    out: Annotated[Path, typer.Option(help="Folder to make; its name is the name of the task.")],
    query: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the queries.")] = None,
    document: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the clicked documents, such as titles.")
    ] = None,
    count: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the number of clicks; 0 is no click.")
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the texts.")] = None,
    text2: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of their duplicates.")] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of labels: 1 for a duplicate, 0 for none.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column that is equal for duplicates.")
    ] = None,
    test: Annotated[
        float,
        typer.Option(min=0.01, max=1, help="Share of the queries that is measured; the rest is to train on."),
    ] = 1.0,
) -> None:
    """Make a task of a table of clicks (query, document) or duplicates (text, text; text, group)."""
    from multicsr.tools.task.make import make_task

    columns: dict[Part, str | None] = {
        "query": query,
        "document": document,
        "count": count,
        "text": text,
        "text2": text2,
        "label": label,
        "group": group,
    }
    given = {part: name for part, name in columns.items() if name is not None}
    echo(make_task(table, out, given, test))


@command(
    app,
    PANEL,
    "multicsr label pairs.tsv --out label.html",
    "multicsr label runs/demo.yaml --out label.html --rows 100",
)
def label(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PAIRS", help="CSV or TSV file with two texts a row; or CONFIG: pairs of its store."
        ),
    ],
    out: Annotated[Path, typer.Option(help="HTML page to write.")],
    rows: Annotated[int, typer.Option(min=1, max=10_000, help="Greatest number of pairs.")] = 100,
    scale: Annotated[
        str, typer.Option(help="similarity: 0 to 5; same: the same or different meaning.")
    ] = "similarity",
    overrides: Overrides = None,
) -> None:
    """Write a page on which a person judges pairs of sentences; it gives a TSV file, which is a task."""
    from multicsr.errors import ConfigError
    from multicsr.tools.label.page import SCALES, write_page
    from multicsr.tools.label.pairs import pairs_of_file, pairs_of_store

    if scale not in SCALES:
        raise ConfigError(f"--scale: {scale}; write {' or '.join(SCALES)}")
    if source.endswith((".yaml", ".yml")):
        pairs = pairs_of_store(read_settings(Path(source), overrides), rows)
    elif overrides:
        raise ConfigError("--set has no effect on a file of pairs")
    else:
        pairs = pairs_of_file(Path(source), rows)
    write_page(pairs, scale, Path(source).stem, out)
    fewer = f", fewer than --rows {rows:,}: there are no more that may be judged" if len(pairs) < rows else ""
    echo(f"{out}: {len(pairs):,} pairs{fewer}; open it in a browser")
