"""A JSON file as a stream of records: one object per line, an array of objects, or a sequence of objects."""

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import BinaryIO

from multicsr.errors import RunError
from multicsr.rows import Reason
from multicsr.stages.ingest import streams
from multicsr.stages.ingest.files import InputFile
from multicsr.stages.ingest.record import Record, no_column, text_record

_LOOK_FOR_COLUMN = 1000
"""Number of records without the column after which its name counts as misspelt."""
_DECODER = json.JSONDecoder(parse_int=float)
"""Decoder that reads integers of any length as floats, because int() accepts at most 4,300 digits. Numbers
are never text, so their precision does not matter."""
_BLANK = " \t\r\n\ufeff"


def json_records(stream: BinaryIO, column: str, file: InputFile) -> Iterator[Record]:
    """Yield the records of a JSON file.

    Raises:
        ConfigError: no object has the column.
        RunError: an array, or an object that spans several lines, is damaged.
    """
    yield from _with_column(_found(stream, column, file), column, file)


def field_names(stream: BinaryIO, file: InputFile) -> list[str]:
    """Return the names of the fields of the first objects, in the order in which they come up."""
    found = islice(_found(stream, "", file), _LOOK_FOR_COLUMN)
    return list(dict.fromkeys(name for _, names in found for name in names))


def _found(stream: BinaryIO, column: str, file: InputFile) -> Iterator[tuple[Record, list[str]]]:
    """Return the record of each object with the names of its fields, one after the other."""
    head = next(blocks := streams.blocks(stream), b"")
    blocks = chain([head], blocks)
    if _spans_lines(head.decode("utf-8", "replace")):
        return (_record(value, column) for value in _values(blocks, file))
    return (_line(line, column) for line in streams.lines_of(blocks))


def _with_column(found: Iterator[tuple[Record, list[str]]], column: str, file: InputFile) -> Iterator[Record]:
    """Yield the records; raise ConfigError if the first ones have fields but none has the column."""
    keys: list[str] = []
    for number, (record, names) in enumerate(found):
        yield record
        if column in names:
            yield from (record for record, _ in found)
            return
        keys = keys or names
        if keys and number >= _LOOK_FOR_COLUMN:
            break
    if keys:
        raise no_column(column, keys, file)


def _line(line: bytes, column: str) -> tuple[Record, list[str]]:
    """Return the record in one line of JSON, and the names of its fields."""
    record = text_record(line)
    if record.reason is not None:
        return record._replace(text=""), []
    if not record.text.strip():
        return record, []
    try:
        value = _DECODER.decode(record.text)
    except (ValueError, RecursionError) as error:
        return Record("", Reason.MALFORMED, f"not JSON: {error}"), []
    return _record(value, column)


def _record(value: object, column: str) -> tuple[Record, list[str]]:
    """Return the record in an object, and the names of its fields; a reject shows nothing of the others."""
    names = list(value) if isinstance(value, dict) else []
    if isinstance(value, dict) and isinstance(value.get(column), str):
        return Record(value[column]), names
    if not isinstance(value, dict):
        problem = "not a JSON object"
    else:
        problem = f"{column} is not a string" if column in value else f"no {column}"
    return Record("", Reason.MALFORMED, problem), names


def _spans_lines(head: str) -> bool:
    """Return whether a file that begins with `head` is an array of objects, or has multi-line objects."""
    head = head.lstrip(_BLANK)
    inside = head[1:].lstrip(_BLANK)
    return (head[:1] == "[" and inside[:1] in ("{", "]", "")) or head.partition("\n")[0].strip() == "{"


def _values(blocks: Iterator[bytes], file: InputFile) -> Iterator[object]:
    """Yield the values of a file, in arrays or in sequence; one value is in memory at a time."""
    text, at, number = "", 0, 0
    for block in chain(blocks, [b""]):
        # A block may end within a character: its bytes are kept as surrogates and joined with the next block.
        text, at = _joined(text[at:], block), 0
        while (at := _next_value(text, at)) < len(text):
            try:
                value, at = _DECODER.raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                if not block or len(text) - at > streams.MAX_RECORD_BYTES:
                    raise RunError(
                        f"input.paths: cannot read {file.shown}: value {number:,} is not JSON ({error}); "
                        "repair it, or write an object a line"
                    ) from error
                break
            number += 1
            yield value


def _joined(text: str, block: bytes) -> str:
    return (text.encode("utf-8", "surrogateescape") + block).decode("utf-8", "surrogateescape")


def _next_value(text: str, at: int) -> int:
    while at < len(text) and (text[at] in _BLANK or text[at] in ",[]"):
        at += 1
    return at
