"""Kinds of tasks of other packages, which `evaluate.kinds` and `multicsr evaluate --kind` name.

An entry point of the group `multicsr.tasks` names a `Kind`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from multicsr.config.evaluation import TASK_KINDS
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
        for each in kind.find(files):
            if isinstance(each, FoundTask):
                yield replace(each, task=PackageTask(each.task, extension))
            else:
                yield each

    return replace(kind, find=find)


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
        return self.task.describe()

    def texts(self) -> Mapping[Role, Iterable[str]]:
        """Implement `Task.texts`."""
        return self.task.texts()

    def digest(self) -> str:
        """Implement `Task.digest`: that of the package's task, and the version of the package."""
        return checksum(f"{self.extension.origin}\0{self.kind}\0{self.task.digest()}".encode())

    def measure(self, encode: Encode, similarity: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`; the scores get the kind of this task."""
        found = self.task.measure(encode, similarity)
        return [replace(each, score=each.score.model_copy(update={"kind": self.kind})) for each in found]
