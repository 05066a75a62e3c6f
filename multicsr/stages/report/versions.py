"""List of the versions of a store, as a table for the terminal and as records for JSON."""

from typing import TYPE_CHECKING

from multicsr.errors import DamagedFileError, MissingFileError, SchemaError
from multicsr.storage.store import Store
from multicsr.storage.versions import ARTIFACTS, Snapshot, Version, published_versions

if TYPE_CHECKING:
    from rich.table import Table

_ROWS = ("sentences", "scored", "curated")


def table(store: Store) -> "Table":
    """Return a table with one line per version: its rows, its model and the command that published it.

    Raises:
        RunError: there is no version.
    """
    from rich.table import Table

    known = published_versions(store)
    lines = Table(
        title=store.uri(), title_justify="left", box=None
    )  # borders would leave too little width for numbers
    lines.add_column("", justify="right", no_wrap=True)
    lines.add_column("published, UTC", no_wrap=True)
    lines.add_column("by", no_wrap=True)
    for artifact in _ROWS:
        lines.add_column(artifact, justify="right", no_wrap=True)
    lines.add_column("model", no_wrap=True)
    for version in known:
        is_current = version is known[-1]
        lines.add_row(*_cells(store, version), style="bold" if is_current else None)
    return lines


def records(store: Store) -> list[dict[str, object]]:
    """Return the versions for JSON, oldest first; rows are null if a manifest is missing or unreadable.

    Raises:
        RunError: there is no version.
    """
    known = published_versions(store)
    return [
        {
            "number": version.number,
            "current": version is known[-1],
            "published": version.created,
            "run": version.run,
            "command": version.command,
            "restores": version.restores,
            "artifacts": version.artifacts,
            "rows": _counts(Snapshot(store, version.artifacts)),
        }
        for version in known
    ]


def _cells(store: Store, version: Version) -> list[str]:
    snapshot = Snapshot(store, version.artifacts)
    what = f"rollback to {version.restores}" if version.restores else version.command
    return [
        str(version.number),
        version.created[:16].replace("T", " "),
        f"{version.run}: {what}",
        *(_rows(snapshot, artifact) for artifact in _ROWS),
        _short(snapshot.fingerprints.get(ARTIFACTS[3], "-")),
    ]


def _rows(snapshot: Snapshot, artifact: str) -> str:
    if artifact not in snapshot:
        return "-"
    count = _count(snapshot, artifact)
    return f"{count:,}" if isinstance(count, int) else count


def _counts(snapshot: Snapshot) -> dict[str, int | None]:
    counts = {artifact: _count(snapshot, artifact) for artifact in _ROWS if artifact in snapshot}
    return {artifact: count if isinstance(count, int) else None for artifact, count in counts.items()}


def _count(snapshot: Snapshot, artifact: str) -> int | str:
    """Return the number of rows of an artifact, or one word for the reason why it is unknown."""
    try:
        return snapshot.manifest(artifact).rows_out
    except MissingFileError:
        return "deleted"
    except DamagedFileError:
        return "damaged"
    except SchemaError:
        return "unreadable"


def _short(fingerprint: str) -> str:
    return fingerprint[:8]
