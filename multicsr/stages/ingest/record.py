"""One record of a file, and its construction from bytes."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from multicsr.errors import ConfigError
from multicsr.rows import Reason
from multicsr.stages.ingest import streams
from multicsr.stages.ingest.files import InputFile


class Record(NamedTuple):
    """One record of a file; its position is its index in the stream of records."""

    text: str
    """Text before normalisation; for a damaged record, as much of the column as can be displayed."""
    reason: Reason | None = None
    """Reason to reject the record; None if it is accepted so far."""
    detail: str | None = None


class Placed(NamedTuple):
    """A record and its 0-based number in the file; all sentences of a document have the document's number."""

    position: int
    record: Record


_SHOWN_BYTES = 4000
"""Bytes that are read of a record that is too long."""


def text_record(raw: bytes) -> Record:
    """Return the record that the bytes contain, or a rejected record if they are too long or not UTF-8."""
    if len(raw) > streams.MAX_RECORD_BYTES:
        return Record(
            shown(raw[:_SHOWN_BYTES]), Reason.TOO_LONG, f"more than {streams.MAX_RECORD_BYTES} bytes"
        )
    try:
        return Record(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Record(shown(raw), Reason.UNDECODABLE, f"byte {error.start}: {error.reason}")


def shown(raw: bytes) -> str:
    """Return bytes as text; invalid UTF-8 bytes are escaped."""
    return raw.decode("utf-8", errors="backslashreplace")


SEPARATOR_REMEDY = "save it with commas, or with tabs as .tsv"
"""Remedy for a CSV or TSV file whose fields are separated by another character."""
_SEPARATORS = (";", "\t", "|")


def foreign_separator(names: Sequence[str], file: InputFile) -> str | None:
    """Return the character that separates the columns of a CSV or TSV file in the place of the usual one."""
    if len(names) != 1 or file.format not in ("csv", "tsv"):
        return None
    others = (separator for separator in _SEPARATORS if (separator, file.format) != ("\t", "tsv"))
    return next((separator for separator in others if separator in names[0]), None)


def no_column(column: str, names: Sequence[str], file: InputFile) -> ConfigError:
    """Return the error for a missing column; its message proposes the column with the nearest name."""
    separator = foreign_separator(names, file)
    if separator is not None:
        return ConfigError(
            f"input.column: {file.shown} has no column {column!r}: its fields are separated by "
            f"{separator!r}; {SEPARATOR_REMEDY}"
        )
    near = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
    if not near and file.format in ("csv", "tsv"):
        remedy += "; for a file without header set input.header: false and the number of the column, from 1"
    return ConfigError(f"input.column: {file.shown} has no column {column!r}; {remedy}")
