"""The versions of a store as a table in the terminal."""

from typing import TYPE_CHECKING

from multicsr.errors import RunError
from multicsr.store import Store
from multicsr.versions import ROOMS, Rooms, Version, versions

if TYPE_CHECKING:
    from rich.table import Table

_ROWS = ("sentences", "scored", "curated")


def table(store: Store) -> "Table":
    """A line a version: its rows, its model and what published it. Raises RunError when there is none."""
    from rich.table import Table

    known = versions(store)
    if not known:
        raise RunError(f"nothing was published in {store.uri()} yet; run `multicsr run CONFIG` first")
    lines = Table(
        title=store.uri(), title_justify="left", box=None
    )  # borders would not leave room for numbers
    lines.add_column("", justify="right", no_wrap=True)
    lines.add_column("published, UTC", no_wrap=True)
    lines.add_column("by", no_wrap=True)
    for room in _ROWS:
        lines.add_column(room, justify="right", no_wrap=True)
    lines.add_column("model", no_wrap=True)
    for version in known:
        is_current = version is known[-1]
        lines.add_row(*_cells(store, version), style="bold" if is_current else None)
    return lines


def _cells(store: Store, version: Version) -> list[str]:
    rooms = Rooms(store, version.rooms)
    what = f"rollback to {version.restores}" if version.restores else version.command
    return [
        str(version.number),
        version.created[:16].replace("T", " "),
        f"{version.run}: {what}",
        *(_rows(rooms, room) for room in _ROWS),
        _short(rooms.fingerprints.get(ROOMS[3], "-")),
    ]


def _rows(rooms: Rooms, room: str) -> str:
    if room not in rooms:
        return "-"
    try:
        return f"{rooms.manifest(room).rows_out:,}"
    except RunError:
        return "deleted"


def _short(fingerprint: str) -> str:
    return fingerprint[:8]
