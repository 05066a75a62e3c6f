"""Labelled data in files: TSV without quoting, or JSON lines, plain or gzip. Columns have names.

Two kinds of rows are read here, because more than the evaluation reads them:

    score, sentence1, sentence2 [, subset]   sentence pairs with human similarity
    anchor, positive, negative               triplets

Other columns are ignored.
"""

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from multicsr.errors import ConfigError
from multicsr.hashing import checksum
from multicsr.storage.local_copy import local_copy

SUFFIXES = (".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")
"""Endings of the names of files with labelled data, in small letters; a name may have capital ones."""
_LONGEST_FIRST = (".tsv.gz", ".jsonl.gz", ".tsv", ".jsonl", ".gz")
PAIR_COLUMNS = ("score", "sentence1", "sentence2")
TRIPLET_COLUMNS = ("anchor", "positive", "negative")


@dataclass(frozen=True)
class ScoredPairs:
    """Sentence pairs with human similarity scores; all lists have the same length."""

    name: str
    scores: list[float]
    sentences1: list[str]
    sentences2: list[str]
    subsets: list[str]
    """Name of each pair's subset; empty strings if the file has no such column."""

    def columns(self) -> list[list[str]]:
        """Return the sentences, one list per column."""
        return [self.sentences1, self.sentences2]

    def digest(self) -> str:
        """Return a hash of the kind and the rows, without the name."""
        return digest_of("StsTask", self)


@dataclass(frozen=True)
class LabelledTriplets:
    """Anchors, each with a positive and a negative sentence; all lists have the same length."""

    name: str
    anchors: list[str]
    positives: list[str]
    negatives: list[str]

    def columns(self) -> list[list[str]]:
        """Return the sentences, one list per column; the anchors are first."""
        return [self.anchors, self.positives, self.negatives]

    def digest(self) -> str:
        """Return a hash of the kind and the rows, without the name."""
        return digest_of("TripletTask", self)


def digest_of(kind: str, data: object) -> str:
    """Return a hash of a kind and of all fields of a data class but `name`, which JSON can hold."""
    fields = {name: value for name, value in vars(data).items() if name != "name"}
    return checksum(json.dumps([kind, fields]).encode())


def read_pairs(path: str | Path, name: str | None = None) -> ScoredPairs:
    """Read sentence pairs with human similarity scores.

    Args:
        path: a file with one of the endings `SUFFIXES`, or its s3:// URI.
        name: name of the pairs; the file's name without its ending if None.

    Raises:
        ConfigError: the file does not exist, lacks a column, has fewer than two different scores, or a row is
            invalid (with its line number).
    """
    rows = list(read_rows(path, PAIR_COLUMNS, ["subset"]))
    scores = [read_number("score", values[0], path, number) for number, values in rows]
    if len(set(scores)) < 2:
        raise ConfigError(f"{path}: a rank correlation needs rows with at least two different scores")
    _, sentences1, sentences2, subsets = (list(column) for column in zip(*_values(rows), strict=True))
    return ScoredPairs(name or file_stem(path), scores, sentences1, sentences2, subsets)


def read_triplets(path: str | Path, name: str | None = None) -> LabelledTriplets:
    """Read triplets; see `read_pairs`.

    Raises:
        ConfigError: the file does not exist, lacks a column, has no rows, or a row is invalid.
    """
    rows = list(read_rows(path, TRIPLET_COLUMNS))
    if not rows:
        raise ConfigError(f"{path} has no rows")
    anchors, positives, negatives = (list(column) for column in zip(*_values(rows), strict=True))
    return LabelledTriplets(name or file_stem(path), anchors, positives, negatives)


def read_columns(path: str | Path) -> list[str]:
    """Return the names of a file's columns: the header of TSV, the keys of the first line of JSON lines.

    Raises:
        ConfigError: the file does not exist or cannot be read.
    """
    with _opened(path) as lines:
        return _columns(lines.readline(), path)


def read_rows(
    path: str | Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, list[str]]]:
    """Yield (1-based line number, values of these columns) of every line that is not blank.

    Args:
        path: a file with one of the endings `SUFFIXES`, or its s3:// URI.
        columns: names of the columns that the file must have.
        optional: names of further columns; a value that is missing is the empty text.

    Raises:
        ConfigError: the file does not exist, cannot be read or lacks a column, or a line is invalid.
    """
    with _opened(path) as lines:
        header = [] if is_json_lines(path) else _columns(lines.readline(), path)
        _check_header(header, [*columns, *optional], path)
        for number, line in enumerate(lines, start=2 if header else 1):
            if text := line.rstrip("\r\n"):
                found = (
                    _tsv_values(header, text, path, number) if header else _json_values(text, path, number)
                )
                if missing := [column for column in columns if column not in found]:
                    raise ConfigError(f"{path}, line {number}: there is no {missing[0]}")
                yield number, [found.get(column, "") for column in (*columns, *optional)]


def read_lists(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[int, list[list[str]]]]:
    """Yield (1-based line number, lists of texts under these keys) of every line of JSON that is not blank.

    A text or a number alone is a list of one.

    Raises:
        ConfigError: the file does not exist or cannot be read, a line is invalid, or a value is no such list.
    """
    with _opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            if text := line.strip():
                record = _json_object(text, path, number)
                yield number, [_texts(record.get(column), column, path, number) for column in columns]


def read_number(column: str, text: str, path: str | Path, number: int) -> float:
    """Return a value as a finite number.

    Raises:
        ConfigError: it is none; the message has the path and the number of the line.
    """
    value = _finite(text)
    if value is None:
        remedy = "" if _finite(text.replace(",", ".")) is None else "; write a point, not a comma"
        raise ConfigError(f"{path}, line {number}: {column} {text!r} is not a number{remedy}")
    return value


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def file_stem(path: str | Path) -> str:
    """Return the name of a file without its endings, see `SUFFIXES`."""
    name = Path(path).name
    ending = next((each for each in _LONGEST_FIRST if name.lower().endswith(each)), "")
    return name[: len(name) - len(ending)]


def _tsv_values(header: Sequence[str], line: str, path: str | Path, number: int) -> dict[str, str]:
    """Return the values of a line of TSV by column."""
    fields = line.split("\t")
    if len(fields) != len(header):
        raise ConfigError(f"{path}, line {number}: {len(fields)} fields, the header has {len(header)}")
    return dict(zip(header, fields, strict=True))


def _json_values(line: str, path: str | Path, number: int) -> dict[str, str]:
    """Return the texts and numbers of a line of JSON by key; a number is its digits."""
    record = _json_object(line, path, number)
    return {key: str(value) for key, value in record.items() if isinstance(value, str | int | float)}


def _json_object(line: str, path: str | Path, number: int) -> dict[str, object]:
    try:
        record = json.loads(line)
        # Half a surrogate pair, which JSON may hold as an escape, is no text that a tokenizer takes.
        json.dumps(record, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}, line {number}: this is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{path}, line {number}: this is no JSON object")
    return record


def _texts(value: object, column: str, path: str | Path, number: int) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int | float) for item in values):
        raise ConfigError(f"{path}, line {number}: {column} must be a text or a list of texts")
    return [str(item) for item in values]


def _columns(first_line: str, path: str | Path) -> list[str]:
    """Return the names of the columns; none for JSON lines that do not begin with an object."""
    if not is_json_lines(path):
        return first_line.rstrip("\r\n").split("\t")
    try:
        record = json.loads(first_line)
    except (ValueError, RecursionError):
        return []
    return [*record] if isinstance(record, dict) else []


def _check_header(header: Sequence[str], columns: Sequence[str], path: str | Path) -> None:
    """Raise if a line of names shows that the lines end in an unusual way, or has a column twice."""
    if any("\r" in name for name in header):
        raise ConfigError(f"{path}: its lines end with a carriage return alone; write line feeds instead")
    if repeated := [column for column in columns if header.count(column) > 1]:
        raise ConfigError(f"{path}: {header.count(repeated[0])} columns {repeated[0]!r}; rename one")


def is_json_lines(path: str | Path) -> bool:
    """Return True if a file's name ends in `.jsonl` or `.jsonl.gz`."""
    return str(path).lower().removesuffix(".gz").endswith(".jsonl")


@contextmanager
def _opened(path: str | Path) -> Iterator[TextIO]:
    """Open a file as text; only \\n ends a line, because other separators may occur in a sentence."""
    local = local_copy(path)
    try:
        opener = gzip.open if local.name.lower().endswith(".gz") else open
        with opener(local, "rt", encoding="utf-8-sig", newline="\n") as file:
            yield cast(TextIO, file)
    except FileNotFoundError as error:
        raise ConfigError(f"no evaluation file {path}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read evaluation file {path}: {error}; convert it to UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot read evaluation file {path}: {error}") from error


def _values(rows: Sequence[tuple[int, list[str]]]) -> Iterator[list[str]]:
    return (values for _, values in rows)
