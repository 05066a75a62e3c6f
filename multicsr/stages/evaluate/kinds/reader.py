"""The interface between the search for tasks and the readers of the kinds."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from multicsr.errors import ConfigError
from multicsr.labelled_files import read_columns
from multicsr.stages.evaluate.task import Task


@dataclass(frozen=True)
class DataFile:
    """A file in which tasks are looked for."""

    path: Path
    """The file, or its local copy."""
    place: str
    """Absolute path or URI of the file, without its endings; those of one task differ in a suffix."""
    name: str
    """`place` below the directory that was named: the name of a task that is this file alone."""

    @cached_property
    def columns(self) -> frozenset[str]:
        """Return the names of the file's columns.

        Raises:
            ConfigError: the file cannot be read.
        """
        return frozenset(read_columns(self.path))


@dataclass(frozen=True)
class FoundTask:
    """A task with the files that it was read from."""

    task: Task
    files: Sequence[DataFile]
    unused: Mapping[str, str] = field(default_factory=dict)
    """Files that belong to the task and are not measured: name -> reason. They are in `files` too."""


@dataclass(frozen=True)
class UnusableFiles:
    """Files that have the columns of a kind and are invalid."""

    files: Sequence[DataFile]
    reason: str
    """The error, which names the file that is invalid."""


@dataclass(frozen=True)
class Kind:
    """A kind of tasks, and how its tasks are found among files."""

    name: str
    layout: str
    """Files and columns of the kind, for messages."""
    find: Callable[[Sequence[DataFile]], Iterable[FoundTask | UnusableFiles]]
    """Reader of all tasks of the kind among files of several folders that no other kind has taken. Invalid
    files do not end it."""


def attempt(
    files: Sequence[DataFile], read: Callable[[], FoundTask | None]
) -> Iterator[FoundTask | UnusableFiles]:
    """Yield the task that a function reads from files, nothing if it finds none, or the files as unusable."""
    try:
        found = read()
    except ConfigError as error:
        yield UnusableFiles(files, str(error))
        return
    if found is not None:
        yield found


def single_files(
    read: Callable[[DataFile], Task | None],
) -> Callable[[Sequence[DataFile]], Iterator[FoundTask | UnusableFiles]]:
    """Return the reader of a kind whose tasks are single files, from one that returns a task or None."""

    def read_one(file: DataFile) -> FoundTask | None:
        task = read(file)
        return None if task is None else FoundTask(task, [file])

    def find(files: Sequence[DataFile]) -> Iterator[FoundTask | UnusableFiles]:
        for file in files:
            yield from attempt([file], partial(read_one, file))

    return find
