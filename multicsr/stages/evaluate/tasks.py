"""Evaluation tasks: labelled files, found by path or in directories, and joins of them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from multicsr.errors import ConfigError
from multicsr.labelled_files import (
    COLUMNS,
    StsTask,
    Task,
    UnknownColumnsError,
    digest_task,
    file_stem,
    read_task,
)
from multicsr.storage.local_copy import local_copy

logger = logging.getLogger(__name__)

_SUFFIXES = (".tsv", ".tsv.gz")


class FoundTasks(NamedTuple):
    """Result of the search for tasks."""

    tasks: list[Task]
    skipped: list[str]
    """Names of the TSV files that are not tasks."""

    @property
    def digests(self) -> dict[str, str]:
        """Return the digest of every task's data, by name of the task."""
        return {task.name: digest_task(task) for task in self.tasks}


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
        except UnknownColumnsError as error:
            logger.info("%s", error)
            skipped.append(name)
    if not tasks:
        raise ConfigError(
            f"no evaluation file in {', '.join(map(str, data)) or 'an empty list'}: give TSV files with the "
            f"columns {COLUMNS}"
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
            named = [((path.parent.relative_to(given) / file_stem(path)).as_posix(), path) for path in found]
        elif given.exists():
            named = [(file_stem(given), given)]
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
