"""A table of clicks or duplicates: its columns, found by their names, and its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from multicsr.errors import ConfigError, RunError
from multicsr.messages.error_chain import first_line
from multicsr.rows import normalise
from multicsr.stages.ingest import streams
from multicsr.stages.ingest.files import InputFile
from multicsr.stages.ingest.formats import format_of
from multicsr.stages.ingest.separated import separated_rows

Part = Literal["query", "document", "count", "text", "text2", "label", "group"]
_NAMES: Mapping[Part, tuple[str, ...]] = {
    "query": ("query", "search", "searchquery", "searchterm", "searchphrase", "keyword", "keywords", "q"),
    "document": (
        *("document", "title", "clicked", "clickedtitle", "clickedtext", "clickeddocument", "documenttitle"),
        *("producttitle", "product", "pagetitle", "page", "passage", "result", "answer", "doc"),
    ),
    "count": ("count", "clicks", "numclicks", "clickcount", "n"),
    "text": (
        *("text", "text1", "sentence1", "question1", "sentence", "question", "a", "texta", "original"),
        *("anchor", "premise"),
    ),
    "text2": (
        *("text2", "sentence2", "question2", "duplicate", "duplicateof", "b", "textb"),
        *("positive", "hypothesis"),
    ),
    "label": ("label", "isduplicate", "isdup", "same", "match", "ismatch"),
    "group": ("group", "groupid", "cluster", "clusterid", "duplicateset", "dupgroup", "topic"),
}
"""Names of columns by what is in them, in small letters without blanks and underscores."""
_KINDS: tuple[tuple[tuple[Part, ...], tuple[Part, ...]], ...] = (
    (("query", "document"), ("count",)),
    (("text", "text2"), ("label",)),
    (("text", "group"), ()),
)
"""Columns that each kind of table needs, and those that it may have too."""
_TRUE = frozenset({"1", "1.0", "true", "yes", "y", "same", "duplicate", "match"})
_FALSE = frozenset(
    {"0", "0.0", "false", "no", "n", "different", "notduplicate", "not duplicate", "nomatch", "-1"}
)


@dataclass(frozen=True)
class TableRow:
    """A row of a table: the values of its columns, and where it stands."""

    values: Mapping[Part, str]
    place: str


@dataclass(frozen=True)
class TextTable:
    """The rows of a table that can be read."""

    columns: Mapping[Part, str]
    """Names of the columns by what is in them."""
    rows: Sequence[TableRow]
    num_unreadable: int
    """Number of records that are damaged or lack a text."""


def read_table(path: Path, given: Mapping[Part, str]) -> TextTable:
    """Read a CSV or TSV file, plain or compressed.

    Args:
        path: the file.
        given: names of columns that the user gave, by what is in them.

    Raises:
        ConfigError: there is no such file, a column is missing, or no row has a text.
        RunError: the file is damaged.
    """
    if not path.is_file():
        raise ConfigError(f"no file {path}")
    format = format_of(path.name, "auto", "und")
    if format not in ("csv", "tsv"):
        raise ConfigError(f"{path} is no CSV or TSV file by the ending of its name; rename it")
    source = InputFile(
        str(path.absolute()), path.name, format, path.stat().st_size, "", 0.0, setting="multicsr task make"
    )
    try:
        with streams.open_stream(source) as stream:
            records = separated_rows(stream, source, header=True)
            first = next(records, None)
            header = first.fields if first is not None and first.fields is not None else []
            columns = find_columns(header, given, path)
            rows: list[TableRow] = []
            num_unreadable = 0
            for record in records:
                values = {} if record.fields is None else _values(header, record.fields, columns)
                if all(values.get(part) for part in columns if part != "count"):
                    rows.append(TableRow(values, f"{path}, line {record.line:,}"))
                else:
                    num_unreadable += 1
    except streams.DAMAGED as error:
        raise RunError(f"cannot read {path}: {first_line(error)}") from error
    if not rows:
        raise ConfigError(f"{path} has no row with {' and '.join(columns.values())}")
    return TextTable(columns, rows, num_unreadable)


def find_columns(header: Sequence[str], given: Mapping[Part, str], path: Path) -> dict[Part, str]:
    """Return the names of the columns by what is in them, for the first kind of table that has all it needs.

    Raises:
        ConfigError: a given column is missing, or no kind of table has these columns.
    """
    for part, name in given.items():
        if name not in header:
            raise ConfigError(
                f"--{part}: {path} has no column {name!r}; it has {', '.join(header) or 'none'}"
            )
        if len(same := [f"--{each}" for each in given if given[each] == name]) > 1:
            raise ConfigError(f"{' and '.join(same)} name the same column {name!r}; name different ones")
    for needed, optional in _KINDS:
        if given.keys() - {*needed, *optional}:
            continue
        taken: dict[Part, str] = {}
        for part in (*needed, *optional):
            known = [name for name in header if _plain(name) in _NAMES[part] and name not in taken.values()]
            if found := given.get(part) or next(iter(known), None):
                taken[part] = found
        if taken.keys() >= {*needed}:
            if repeated := [name for name in taken.values() if header.count(name) > 1]:
                raise ConfigError(
                    f"{path} has {header.count(repeated[0])} columns {repeated[0]!r}; rename one"
                )
            return taken
    raise ConfigError(
        f"{path} has the columns {', '.join(header) or 'none'}; rename those of clicks to query and "
        "document, those of duplicates to text and text2, or text and group; or name them with the "
        "options of `multicsr task make`"
    )


def is_duplicate(row: TableRow) -> bool:
    """Return True if the label of a row is that of duplicates.

    Raises:
        ConfigError: it is no label.
    """
    label = row.values["label"].strip().casefold()
    if label not in _TRUE | _FALSE:
        raise ConfigError(f"{row.place}: label {row.values['label']!r} is neither 1 nor 0")
    return label in _TRUE


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _values(header: Sequence[str], fields: Sequence[str], columns: Mapping[Part, str]) -> dict[Part, str]:
    return {part: _text(fields[header.index(name)]) for part, name in columns.items()}


def _text(field: str) -> str:
    """Return a field as one line; bytes that are not UTF-8 become replacement characters."""
    return normalise(field.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
