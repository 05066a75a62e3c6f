"""Labelled sentences in TSV files, without quoting, plain or gzip. The columns decide the kind of task.

    score, sentence1, sentence2 [, subset]   sentence pairs with human similarity (STS)
    anchor, positive, negative               triplets

Other columns are ignored.
"""

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from multicsr.errors import ConfigError
from multicsr.hashing import checksum
from multicsr.storage.local_copy import local_copy

_STS = ("score", "sentence1", "sentence2")
_TRIPLETS = ("anchor", "positive", "negative")
COLUMNS = f"{', '.join(_STS)}, or {', '.join(_TRIPLETS)}"
"""Columns of both kinds, for messages."""


@dataclass(frozen=True)
class StsTask:
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


@dataclass(frozen=True)
class TripletTask:
    """Anchors, each with a positive and a negative sentence; all lists have the same length."""

    name: str
    anchors: list[str]
    positives: list[str]
    negatives: list[str]

    def columns(self) -> list[list[str]]:
        """Return the sentences, one list per column; the anchors are first."""
        return [self.anchors, self.positives, self.negatives]


Task = StsTask | TripletTask


def digest_task(task: Task) -> str:
    """Return a hash of the kind and the rows of a task, without its name."""
    columns = {name: column for name, column in vars(task).items() if name != "name"}
    return checksum(json.dumps([type(task).__name__, columns]).encode())


class UnknownColumnsError(ConfigError):
    """Error for a readable TSV file whose columns do not match any kind of task."""


def read_task(path: str | Path, name: str | None = None) -> Task:
    """Read one TSV file.

    Args:
        path: a `.tsv` or `.tsv.gz` file, or its s3:// URI.
        name: name of the task; the file's name without its ending if None.

    Raises:
        ConfigError: the file does not exist, its columns are unknown, it has no rows, or a row is invalid
            (with its line number).
    """
    path = local_copy(path)
    name = name or file_stem(path)
    try:
        with _open(path) as lines:
            header = lines.readline().removeprefix("\ufeff").rstrip("\r\n").split("\t")
            rows = _rows(lines, path, len(header))
            if set(_STS) <= set(header):
                return _sts(path, name, header, list(rows))
            if set(_TRIPLETS) <= set(header):
                return _triplets(path, name, header, list(rows))
    except FileNotFoundError as error:
        raise ConfigError(f"no evaluation file {path}") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read evaluation file {path}: {error}") from error
    raise UnknownColumnsError(f"{path} is no evaluation file: it needs the columns {COLUMNS}")


def file_stem(path: Path) -> str:
    """Return the name of a TSV file without its endings."""
    return path.name.removesuffix(".gz").removesuffix(".tsv")


def _open(path: Path) -> TextIO:
    """Open a TSV file as text; only \\n ends a line, because other separators may occur in a sentence."""
    if path.name.endswith(".gz"):
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8", newline="\n"))
    return path.open(encoding="utf-8", newline="\n")


def _rows(lines: TextIO, path: Path, num_columns: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (1-based line number, fields) of every line that is not blank."""
    for number, line in enumerate(lines, start=2):
        fields = line.rstrip("\r\n").split("\t")
        if fields == [""]:
            continue
        if len(fields) != num_columns:
            raise ConfigError(f"{path}, line {number}: {len(fields)} fields, the header has {num_columns}")
        yield number, fields


def _sts(path: Path, name: str, header: list[str], rows: list[tuple[int, list[str]]]) -> StsTask:
    at = {column: header.index(column) for column in _STS}
    subset_at = header.index("subset") if "subset" in header else None
    scores = [_score(fields[at["score"]], path, number) for number, fields in rows]
    if len(set(scores)) < 2:
        raise ConfigError(f"{path}: a rank correlation needs rows with at least two different scores")
    return StsTask(
        name,
        scores,
        [fields[at["sentence1"]] for _, fields in rows],
        [fields[at["sentence2"]] for _, fields in rows],
        ["" if subset_at is None else fields[subset_at] for _, fields in rows],
    )


def _triplets(path: Path, name: str, header: list[str], rows: list[tuple[int, list[str]]]) -> TripletTask:
    if not rows:
        raise ConfigError(f"{path} has no rows")
    columns = [[fields[header.index(column)] for _, fields in rows] for column in _TRIPLETS]
    return TripletTask(name, *columns)


def _score(text: str, path: Path, number: int) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ConfigError(f"{path}, line {number}: score {text!r} is not a number")
    return score
