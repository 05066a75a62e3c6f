"""Evaluation tasks: labelled files, found by path or in directories, and joins of them."""

import logging
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

from multicsr.errors import ConfigError
from multicsr.labelled_files import PAIR_COLUMNS, SUFFIXES, TRIPLET_COLUMNS, file_stem, is_json_lines
from multicsr.messages.terminal import one_line
from multicsr.stages.evaluate.kinds import KINDS
from multicsr.stages.evaluate.kinds.of_packages import load_kind
from multicsr.stages.evaluate.kinds.reader import DataFile, FoundTask
from multicsr.stages.evaluate.kinds.retrieval_files import is_part
from multicsr.stages.evaluate.kinds.splits import other_splits
from multicsr.stages.evaluate.kinds.sts import StsTask
from multicsr.stages.evaluate.mteb_tasks import read_mteb_task
from multicsr.stages.evaluate.task import Task
from multicsr.storage.local_copy import local_copy

logger = logging.getLogger(__name__)

_NAMED = 5
"""Maximum number of files with other endings that are named."""


class FoundTasks(NamedTuple):
    """Result of the search for tasks."""

    tasks: list[Task]
    skipped: dict[str, str]
    """Files that are not measured: name without ending -> reason."""
    parts: frozenset[str] = frozenset()
    """Names of the tasks that a joined task contains; in averages their examples count once, in that task."""
    unusable: Mapping[str, str] = MappingProxyType({})
    """Files that have the columns of a kind and are invalid, which `find_tasks` lets pass on request: name
    without ending -> error."""
    others: tuple[str, ...] = ()
    """Files that have other endings than `SUFFIXES`: paths below the directory that was given."""

    @property
    def digests(self) -> dict[str, str]:
        """Return the digest of every task's data, by name of the task."""
        return {task.name: task.digest() for task in self.tasks}

    def describe(self) -> list[str]:
        """Return a line for each kind with the tasks and their sizes, and one for each file left out.

        Files with other endings share a line.
        """
        kinds: dict[str, list[str]] = {}
        for task in self.tasks:
            kinds.setdefault(task.kind, []).append(f"{task.name} ({task.describe()})")
        return [
            *(f"{kind}: {'; '.join(tasks)}" for kind, tasks in kinds.items()),
            *(f"not measured: {name}: {reason}" for name, reason in self.skipped.items()),
            *(f"not measured: {name}: {reason}" for name, reason in self.unusable.items()),
            *([f"not measured: {self._describe_others()}"] if self.others else []),
        ]

    def unusable_files(self) -> list[str]:
        """Return a line on the invalid files; none if there are none."""
        if not (count := len(self.unusable)):
            return []
        files = f"{count:,} file{'s were' if count > 1 else ' was'}"
        return [f"{files} not measured: {one_line(', '.join(self.unusable))}; the reasons stand above"]

    def _describe_others(self) -> str:
        names = [*self.others[:_NAMED], *(["..."] if len(self.others) > _NAMED else [])]
        endings = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        files = "1 file that does" if len(self.others) == 1 else f"{len(self.others):,} files that do"
        return f"{files} not end in {endings}: {one_line(', '.join(names))}"


def find_tasks(
    data: Sequence[str | Path],
    joins: Mapping[str, Sequence[str]] | None = None,
    mteb: Sequence[str] = (),
    *,
    kinds: Sequence[str] = (),
    lets_invalid_pass: bool = False,
) -> FoundTasks:
    """Read every task in files and directories, and tasks of mteb.

    Args:
        data: files, or directories, which are searched recursively. A task found in a directory is named by
            its path below that directory.
        joins: STS tasks to add: name -> names of the tasks whose pairs are concatenated.
        mteb: names of tasks of mteb, whose data are in its cache.
        kinds: names of kinds of other packages, which are offered the files before those that are built in.
        lets_invalid_pass: return invalid files in `unusable` if there is a valid one.

    Raises:
        ConfigError: a path is missing, files are invalid (one line for each), two tasks have the same name, a
            join names an unknown task, a task of mteb or a package cannot be read, or there is no task.
    """
    if not data and not mteb:
        raise ConfigError("there is nothing to measure: give files or directories, or tasks of mteb")
    files = list(_files(data))
    members = frozenset(chain.from_iterable((joins or {}).values()))
    found, skipped, unusable = _read(files, members, kinds)
    if unusable and not (lets_invalid_pass and (found or mteb)):
        raise ConfigError(*unusable.values())
    tasks: dict[str, Task] = {}
    for task in (*(each.task for each in found), *map(read_mteb_task, dict.fromkeys(mteb))):
        if task.name in tasks:
            raise ConfigError(f"two evaluation tasks are called {task.name!r}; rename a file")
        tasks[task.name] = task
    if not tasks:
        reasons = FoundTasks([], skipped, others=tuple(_other_files(data))).describe()
        raise ConfigError(f"no evaluation file in {', '.join(map(str, data))}: {_LAYOUTS}", *reasons)
    joined = [_join(name, members, tasks) for name, members in (joins or {}).items()]
    return FoundTasks([*tasks.values(), *joined], skipped, members, unusable, tuple(_other_files(data)))


def read_task(path: str | Path, name: str | None = None) -> Task:
    """Read the task that one file is.

    Args:
        path: a `.tsv`, `.tsv.gz`, `.jsonl` or `.jsonl.gz` file, or its s3:// URI.
        name: name of the task; the file's name without its ending if None.

    Raises:
        ConfigError: the file does not exist, its columns are unknown, it has no rows, or a row is invalid
            (with its line number).
    """
    found, _, unusable = _read([DataFile(local_copy(path), file_stem(path), name or file_stem(path))])
    if unusable:
        raise ConfigError(*unusable.values())
    if not found:
        raise ConfigError(f"{path} is no evaluation file: {_LAYOUTS}")
    return found[0].task


_LAYOUTS = (
    f"it needs {KINDS[0].layout}, or {KINDS[1].layout}, or those of another kind of task "
    f"({', '.join(kind.name for kind in KINDS[2:])}); the documentation has them under Measure encoders"
)


def _read(
    files: Sequence[DataFile], members: Container[str] = (), kinds: Sequence[str] = ()
) -> tuple[list[FoundTask], dict[str, str], dict[str, str]]:
    """Return the tasks in the order of their files, and the files left out and the unusable ones with the
    reasons.

    Args:
        files: the files.
        members: names of the tasks that joined tasks consist of.
        kinds: names of kinds of other packages.
    """
    tasks: list[FoundTask] = []
    skipped: dict[str, str] = {}
    unusable = {file.name: problem for file in files if (problem := _unreadable(file))}
    rest = [file for file in files if file.name not in unusable]
    for kind in (*map(load_kind, kinds), *KINDS):
        for found in kind.find(rest):
            if isinstance(found, FoundTask):
                tasks.append(found)
                skipped.update(found.unused)
            else:
                unusable[found.files[0].name] = found.reason
            rest = [file for file in rest if file not in found.files]
    skipped.update((file.name, _no_task(file)) for file in rest)
    splits = other_splits(tasks, members)
    skipped.update(splits)
    tasks = [found for found in tasks if found.task.name not in splits]
    for name, reason in skipped.items():
        logger.info("%s is not measured: %s", name, reason)
    return sorted(tasks, key=lambda found: files.index(found.files[0])), skipped, unusable


def _unreadable(file: DataFile) -> str | None:
    """Return why the names of the columns cannot be read; None if they can."""
    try:
        _ = file.columns
    except ConfigError as error:
        return str(error)
    return None


def _no_task(file: DataFile) -> str:
    shown = ", ".join(sorted(file.columns)) or "none"
    if not any(file.columns):
        return "its first line is empty" + (" or no JSON object" if is_json_lines(file.path) else "")
    if "\0" in shown:
        return "it holds zero bytes, as UTF-16 does; convert it to UTF-8"
    if "\r" in shown:
        return "its lines end with a carriage return alone; write line feeds instead"
    if is_part(file):
        return "a set of retrieval needs corpus, queries and qrels; one is missing, or has other columns"
    if "label" in file.columns and not file.columns.isdisjoint(("sentence", "text")):
        return "its sentences have fewer than two labels"
    if len(file.columns) == 1 and "," in shown:
        return f"its columns are separated by commas ({one_line(shown)}); convert it to TSV"
    return f"no kind of task has its columns ({one_line(shown)}){_hint(file.columns)}"


def _hint(names: frozenset[str]) -> str:
    """Return what is wrong with the names of columns that look like a row, or differ in case or blanks."""
    plain = {name.strip().lower() for name in names}
    if plain != names and any(plain.issuperset(known) for known in (PAIR_COLUMNS, TRIPLET_COLUMNS)):
        return "; write them in small letters and without blanks"
    if any(" " in name.strip() or name.strip().isdecimal() for name in names):
        return "; if that is a row, write a first line with the names of the columns"
    return ""


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


def _files(data: Sequence[str | Path]) -> Iterator[DataFile]:
    """Yield every file that may be data of a task once."""
    seen: set[Path] = set()
    for given in data:
        local = local_copy(given)
        if local.is_dir():
            found = [_below(local, path) for path in data_files(local)]
        elif local.exists():
            found = [DataFile(local, _place(given), file_stem(given))]
        else:
            raise ConfigError(f"no evaluation file or directory {given}")
        for file in found:
            if file.path.resolve() not in seen:
                seen.add(file.path.resolve())
                yield file


def _place(given: str | Path) -> str:
    """Return the place of a file: an absolute path, however it was named, or a URI, without its endings."""
    name = str(given) if str(given).startswith("s3://") else os.path.abspath(given)
    return str(PurePosixPath(name).parent / file_stem(given))


def _below(folder: Path, path: Path) -> DataFile:
    name = path.parent.relative_to(folder) / file_stem(path)
    return DataFile(path, _place(path), name.as_posix())


def data_files(folder: Path) -> list[Path]:
    """Return the files below a folder that may be data of a task, sorted.

    Links to folders are entered. Files whose path has a name that begins with a dot are left out (macOS
    `._x.tsv`).
    """
    return [path for path in _below_folder(folder) if path.name.lower().endswith(SUFFIXES)]


def _other_files(data: Sequence[str | Path]) -> Iterator[str]:
    """Yield the paths below their directory of files that have other endings than data."""
    for folder in (local for given in data if (local := local_copy(given)).is_dir()):
        for path in _below_folder(folder):
            if not path.name.lower().endswith(SUFFIXES):
                yield path.relative_to(folder).as_posix()


def _below_folder(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted, without those of names that begin with a dot.

    A folder that is reached by several ways, such as a link to one above it, is entered once.
    """
    files: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(path for path in files if path.is_file())
