"""Evaluation data: TSV files, without quoting, plain or gzip. The columns decide the kind of task.

    score, sentence1, sentence2 [, subset]   sentence pairs with human similarity (STS)
    anchor, positive, negative               triplets

Other columns are ignored.
"""

import gzip
import json
import logging
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO, cast

from multicsr.errors import ConfigError
from multicsr.hashing import checksum
from multicsr.storage.local_copy import local_copy

logger = logging.getLogger(__name__)

_STS = ("score", "sentence1", "sentence2")
_TRIPLETS = ("anchor", "positive", "negative")
_SUFFIXES = (".tsv", ".tsv.gz")


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


class FoundTasks(NamedTuple):
    """Result of the search for tasks."""

    tasks: list[Task]
    skipped: list[str]
    """Names of the TSV files that are not tasks."""

    @property
    def digests(self) -> dict[str, str]:
        """Return the digest of every task's data, by name of the task."""
        return {task.name: digest_task(task) for task in self.tasks}


class _UnknownKind(ConfigError):
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
    name = name or _stem(path)
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
    raise _UnknownKind(
        f"{path} is no evaluation file: it needs the columns {', '.join(_STS)}, or {', '.join(_TRIPLETS)}"
    )


def find_tasks(data: Sequence[str | Path], joins: Mapping[str, Sequence[str]] | None = None) -> FoundTasks:
    """Read every task in files and directories.

    Args:
        data: TSV files, or directories, which are searched recursively. A task found in a directory is named
            by its path below that directory.
        joins: STS tasks to add: name -> names of the tasks whose pairs are concatenated.

    Raises:
        ConfigError: a path is missing, a file is invalid, two tasks have the same name, a join names an
            unknown task, or there is no task.
    """
    tasks: dict[str, Task] = {}
    skipped: list[str] = []
    for name, path in _files(data):
        if name in tasks:
            raise ConfigError(f"two evaluation files are called {name!r}; rename one of them")
        try:
            tasks[name] = read_task(path, name)
        except _UnknownKind as error:
            logger.info("%s", error)
            skipped.append(name)
    if not tasks:
        raise ConfigError(
            f"no evaluation file in {', '.join(map(str, data)) or 'an empty list'}: give TSV files with the "
            f"columns {', '.join(_STS)}, or {', '.join(_TRIPLETS)}"
        )
    joined = [_join(name, members, tasks) for name, members in (joins or {}).items()]
    return FoundTasks([*tasks.values(), *joined], skipped)


def _parse_join(text: str) -> tuple[str, list[str]]:
    """Return the name of a joined task and the names of its members, from `name=task,task,...`."""
    name, _, members = text.partition("=")
    names = [member.strip() for member in members.split(",")]
    if not name.strip() or not all(names):
        raise ConfigError(f"--join {text!r}: write name=task,task,...")
    return name.strip(), names


def parse_joins(texts: Sequence[str]) -> dict[str, list[str]]:
    """Parse `name=task,task,...`, the definitions of joined tasks on the command line.

    Returns:
        Name of each joined task -> names of its members.

    Raises:
        ConfigError: a text has another form, two have the same name, or one names a task twice.
    """
    joins: dict[str, list[str]] = {}
    for text in texts:
        name, members = _parse_join(text)
        if name in joins:
            raise ConfigError(f"--join {text!r}: another joined task is called {name}; take another name")
        if len({*members}) < len(members):
            raise ConfigError(f"--join {text!r}: a task is named twice, so its pairs would count twice")
        joins[name] = members
    return joins


def _join(name: str, members: Sequence[str], tasks: Mapping[str, Task]) -> StsTask:
    if name in tasks:
        raise ConfigError(f"joined task {name!r}: a file is called that already")
    parts = [_sts_named(member, name, tasks) for member in members]
    return StsTask(
        name,
        [score for part in parts for score in part.scores],
        [sentence for part in parts for sentence in part.sentences1],
        [sentence for part in parts for sentence in part.sentences2],
        [subset or part.name for part in parts for subset in part.subsets],
    )


def _sts_named(member: str, join: str, tasks: Mapping[str, Task]) -> StsTask:
    task = tasks.get(member)
    if not isinstance(task, StsTask):
        known = ", ".join(sorted(name for name, task in tasks.items() if isinstance(task, StsTask)))
        raise ConfigError(f"joined task {join!r}: no STS task {member!r}; there are {known or 'none'}")
    return task


def _files(data: Sequence[str | Path]) -> Iterator[tuple[str, Path]]:
    """Yield (task name, file) for every TSV file, each file once."""
    seen: set[Path] = set()
    for given in map(local_copy, data):
        if given.is_dir():
            found = tsv_files(given)
            named = [((path.parent.relative_to(given) / _stem(path)).as_posix(), path) for path in found]
        elif given.exists():
            named = [(_stem(given), given)]
        else:
            raise ConfigError(f"no evaluation file or directory {given}")
        for name, path in named:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield name, path


def tsv_files(folder: Path) -> list[Path]:
    """Return the TSV files below a folder, sorted, without names that begin with a dot (macOS `._x.tsv`)."""
    return sorted(
        path
        for path in folder.rglob("*.tsv*")
        if path.name.endswith(_SUFFIXES)
        and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def _stem(path: Path) -> str:
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
