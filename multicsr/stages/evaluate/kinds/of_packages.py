"""Kinds of tasks of other packages, which `evaluate.kinds` and `multicsr evaluate --kind` name.

An entry point of the group `multicsr.tasks` names a `Kind`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from multicsr.config.evaluation import TASK_KINDS
from multicsr.errors import RunError
from multicsr.extensions import Extension
from multicsr.hashing import checksum
from multicsr.stages.evaluate.kinds.reader import DataFile, FoundTask, Kind, UnusableFiles
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Encode, Measurement, Role, Task


def load_kind(name: str) -> Kind:
    """Return a kind of a package. The digests of its tasks depend on the version of the package.

    Raises:
        ConfigError: no package has the kind, or it cannot be imported or names no `Kind`.
    """
    extension = TASK_KINDS.require(name)
    found = extension.load()
    if not isinstance(found, Kind):
        raise extension.unusable(f"is no {Kind.__module__}.Kind")
    kind = found

    def find(files: Sequence[DataFile]) -> Iterator[FoundTask | UnusableFiles]:
        with extension.calling():
            tasks = list(kind.find(files))
        for each in tasks:
            _require_result(extension, each, files)
            if isinstance(each, FoundTask):
                yield replace(each, task=PackageTask(each.task, extension))
            else:
                yield each

    return replace(kind, find=find)


def _require_result(extension: Extension, found: object, offered: Sequence[DataFile]) -> None:
    """Raise RunError unless a kind of a package found a task or unusable files among those offered to it."""
    if not isinstance(found, FoundTask | UnusableFiles):
        raise RunError(f"{extension} found {found!r}; a kind finds FoundTask or UnusableFiles")
    if not found.files or any(file not in offered for file in found.files):
        names = ", ".join(str(file) for file in found.files) or "no files"
        raise RunError(f"{extension} found a task in {names}, which were not offered to it")


@dataclass(frozen=True)
class PackageTask:
    """A task of a kind of a package."""

    task: Task
    extension: Extension

    @property
    def name(self) -> str:
        """Implement `Task.name`."""
        return self.task.name

    @property
    def kind(self) -> str:
        """Implement `Task.kind`: the name of the entry point."""
        return self.extension.name

    def describe(self) -> str:
        """Implement `Task.describe`."""
        with self.extension.calling():
            return self.task.describe()

    def texts(self) -> Mapping[Role, Iterable[str]]:
        """Implement `Task.texts`."""
        with self.extension.calling():
            return self.task.texts()

    def digest(self) -> str:
        """Implement `Task.digest`: that of the package's task, and the version of the package."""
        with self.extension.calling():
            digest = self.task.digest()
        return checksum(f"{self.extension.origin}\0{self.kind}\0{digest}".encode())

    def measure(self, encode: Encode, similarity: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`; the scores get the kind of this task."""
        with self.extension.calling():
            found = list(self.task.measure(encode, similarity))
        return [replace(each, score=each.score.model_copy(update={"kind": self.kind})) for each in found]
