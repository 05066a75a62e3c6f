"""The tables and figures of the paper by name, and their list."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from multicsr.errors import ConfigError
from multicsr.tools.reproduce import appendix_tables, figures, main_tables
from multicsr.tools.reproduce.paper import PaperEntry

ENTRIES: Mapping[str, PaperEntry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            main_tables.TABLE_1,
            main_tables.TABLE_2,
            main_tables.TABLE_3,
            main_tables.TABLE_4,
            main_tables.TABLE_5,
            appendix_tables.TABLE_6,
            appendix_tables.TABLE_7,
            appendix_tables.TABLE_8,
            appendix_tables.TABLE_9,
            appendix_tables.TABLE_10,
            appendix_tables.TABLE_11,
            appendix_tables.TABLE_12,
            appendix_tables.TABLE_13,
            figures.FIGURE_4,
            figures.FIGURE_5,
            figures.FIGURE_6,
            figures.FIGURE_7,
        )
    }
)
"""Name of a table or figure -> its entry, in the order of the paper."""


def entry_named(name: str) -> PaperEntry:
    """Return a table or figure of the paper.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in ENTRIES:
        raise ConfigError(f"{name!r} is no table or figure of the paper; use one of {', '.join(ENTRIES)}")
    return ENTRIES[name]


def list_lines() -> Iterator[str]:
    """Yield a line for each table and figure: its name, whether it can run, its title."""
    for entry in ENTRIES.values():
        yield f"{entry.name:<10} {runs(entry):<17} {entry.title}"


def runs(entry: PaperEntry) -> str:
    """Return how much of a table or figure this package can run, in few words."""
    count, total = len(entry.runnable()), len(entry.rows)
    return "runs" if count == total else f"runs {count} of {total} rows"
