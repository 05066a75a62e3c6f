"""A CSV or TSV file as a stream of records.

A quote that is never closed costs one line, not the rest of the file. CSV uses the usual quotes; in TSV, a
quote is an ordinary character.
"""

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from multicsr.errors import ConfigError, RunError
from multicsr.rows import Reason
from multicsr.stages.ingest import streams
from multicsr.stages.ingest.files import InputFile
from multicsr.stages.ingest.record import Record, no_column, text_record

_MAX_LINES = 100_000
"""Maximum number of lines of one record; even a book in one field has fewer."""
_MAX_UNCLOSED = 100
"""Maximum number of long records with an unclosed quote in one file. The lines of such a record are read
twice, and a file with more of them does not use quotes in the way of CSV."""
_LONG_LINES = 100
"""Number of lines above which a record with an unclosed quote counts as long."""


class _Feed:
    """Source of lines for a CSV reader; the lines of the current record can be read again."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = (line.decode("utf-8", "surrogateescape") + "\n" for line in streams.lines(stream))
        self._again: deque[str] = deque()
        self._size = 0
        self.record: list[str] = []
        """Lines of the current record."""
        self.number = 1
        """Number of the first line of the current record, counted from 1."""
        self.is_cut = False
        """True if the current record was cut by the end of the file or by a size limit."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.record) >= _MAX_LINES or self._size > streams.MAX_RECORD_BYTES:
            self.is_cut = True
            raise StopIteration
        line = self._again.popleft() if self._again else next(self._lines, None)
        if line is None:
            self.is_cut = bool(self.record)
            raise StopIteration
        self.record.append(line)
        self._size += len(line)
        return line

    def begin(self) -> None:
        """Begin the next record."""
        self.number += len(self.record)
        self.record, self._size, self.is_cut = [], 0, False

    def give_back(self, keep: int) -> None:
        """Put all lines of the record after the first `keep` back, to be read again as further records."""
        self._again.extendleft(reversed(self.record[keep:]))
        del self.record[keep:]


class SeparatedRow(NamedTuple):
    """The fields of one record, or the reason why they cannot be read."""

    line: int
    """Number of the record's first line, from 1."""
    fields: list[str] | None
    """Fields, as many as the first line has. Bytes that are not UTF-8 are surrogates in them. None: damaged,
    or a blank line."""
    reason: Reason | None = None
    """Reason to reject the record; None if its fields were read."""
    detail: str | None = None


def separated(stream: BinaryIO, column: str, file: InputFile, *, header: bool) -> Iterator[Record]:
    """Yield the records of a CSV or TSV file.

    Args:
        stream: the decompressed bytes.
        column: name of the column in the header; without a header, its number, from 1.
        file: the file, for its format and for messages.
        header: whether the first line has the names of the columns; otherwise it is the first record.

    Raises:
        ConfigError: the header has no column of that name, or two; the first line has too few columns, or an
            unclosed quote.
        RunError: too many records have an unclosed quote.
    """
    rows = separated_rows(stream, file, header=header)
    first = next(rows, None)
    if first is None or first.fields is None:
        return
    find = _named_column if header else _numbered_column
    at = find(first.fields, column, file)
    for row in rows:
        if row.fields is None:
            yield Record("", row.reason, row.detail)  # which column the text is in is not known
        else:
            # Bytes that are not UTF-8 came through as surrogates; converted back, text_record rejects them.
            field = row.fields[at]
            yield Record(field) if field.isascii() else text_record(_bytes(field))


def separated_rows(stream: BinaryIO, file: InputFile, *, header: bool) -> Iterator[SeparatedRow]:
    """Yield the first line of a CSV or TSV file, and then its records, all with the same number of fields.

    Args:
        stream: the decompressed bytes.
        file: the file, for its format and for messages.
        header: whether the first line has the names of the columns; otherwise it is yielded again, as the
            first record.

    Raises:
        ConfigError: the first line has an unclosed quote.
        RunError: too many records have an unclosed quote.
    """
    feed, rows = _reader(stream, file)
    first = _first_row(rows, feed, file)
    if first is None:
        return
    yield SeparatedRow(feed.number, first)
    if not header:
        feed.give_back(0)
    unclosed: list[int] = []
    while True:
        feed.begin()
        fields, problem = _next(rows)
        if not feed.record:
            return
        if feed.is_cut or (len(feed.record) > 1 and _is_unclosed(fields, feed, len(first))):
            num_lines = len(feed.record)
            detail = (
                f"line {feed.number:,}: a quote is not closed as it should be; it spans {num_lines:,} lines"
            )
            yield SeparatedRow(feed.number, None, Reason.MALFORMED, detail)
            feed.give_back(1)
            unclosed += [feed.number] if num_lines > _LONG_LINES else []
            if len(unclosed) > _MAX_UNCLOSED:
                raise RunError(
                    f"{file.setting}: {file.shown} has more than {_MAX_UNCLOSED} quotes that are not closed, "
                    f'the first in line {unclosed[0]:,}; write a quote within a field as "", or take TSV'
                )
        elif fields is None:
            yield SeparatedRow(feed.number, None, Reason.MALFORMED, f"line {feed.number:,}: {problem}")
        elif len(fields) == len(first):
            yield SeparatedRow(feed.number, fields)
        elif fields:
            of = "header" if header else "first line"
            detail = f"line {feed.number:,}: {len(fields)} fields, the {of} has {len(first)}"
            yield SeparatedRow(feed.number, None, Reason.MALFORMED, detail)
        else:
            yield SeparatedRow(feed.number, None, Reason.EMPTY)


def first_fields(stream: BinaryIO, file: InputFile) -> list[str]:
    """Return the fields of the first line of a CSV or TSV file; none if the file is empty.

    Raises:
        ConfigError: the line has an unclosed quote.
    """
    feed, rows = _reader(stream, file)
    return _first_row(rows, feed, file) or []


def _reader(stream: BinaryIO, file: InputFile) -> tuple[_Feed, Iterator[list[str]]]:
    """Return the source of lines, and the reader of their fields."""
    csv.field_size_limit(streams.MAX_RECORD_BYTES)
    feed = _Feed(stream)
    if file.format == "csv":
        return feed, csv.reader(feed)
    return feed, csv.reader(feed, "excel-tab", quoting=csv.QUOTE_NONE)


def _first_row(rows: Iterator[list[str]], feed: _Feed, file: InputFile) -> list[str] | None:
    """Return the fields of the first line that is not blank; None if the file is empty."""
    fields, problem = _next(rows)
    while fields == [] and not feed.is_cut:  # a blank line
        feed.begin()
        fields, problem = _next(rows)
    if not feed.record:
        return None
    if fields is None or feed.is_cut:
        raise ConfigError(
            f"{file.setting}: {file.shown} has no first line that ends: "
            f"{problem or 'a quote is not closed'}; correct it"
        )
    return fields


def _named_column(header: Sequence[str], column: str, file: InputFile) -> int:
    if column not in header:
        raise no_column(column, header, file)
    if header.count(column) > 1:
        raise ConfigError(
            f"input.column: {file.shown} has {header.count(column)} columns {column!r}; rename one"
        )
    return header.index(column)


def _numbered_column(first: Sequence[str], column: str, file: InputFile) -> int:
    if int(column) > len(first):
        raise ConfigError(
            f"input.column: {file.shown} has no column {column}; its first line has {len(first)} columns"
        )
    return int(column) - 1


def _next(rows: Iterator[list[str]]) -> tuple[list[str] | None, str]:
    """Return the fields of the next record and "", or None and the error; None and "" at the end."""
    try:
        return next(rows, None), ""
    except csv.Error as error:
        return None, str(error)


def _is_unclosed(fields: Sequence[str] | None, feed: _Feed, num_columns: int) -> bool:
    """Return whether a record of several lines is really one line with a stray quote, and further records.

    A genuine record has valid quotes and as many fields as the header. In a file of several columns, if at
    least two lines lie between its first and last line and all of them are complete records themselves, they
    are not text of a field.
    """
    if fields is None or len(fields) != num_columns or _rows(feed.record) is None:
        return True
    between = _rows(feed.record[1:-1]) or []
    return num_columns > 1 and len(between) >= 2 and {len(row) for row in between} == {num_columns}


def _rows(record: Sequence[str]) -> list[list[str]] | None:
    """Return the rows in some lines, parsed with strict quoting; None if a quote is not valid."""
    try:
        return list(csv.reader(record, strict=True))
    except csv.Error:
        return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")
