"""Files that are the splits of one data set: `NAME_train`, `NAME_dev`, `NAME_test`, or a folder of such."""

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from multicsr.stages.evaluate.kinds.reader import DataFile, FoundTask

_ORDER = ("train", "dev", "test")
_DEV = ("dev", "development", "val", "valid", "validation", "trial")
_MEASURED_FIRST = ("test", *_DEV, "train")
_SPLIT = re.compile(rf"(?:(.*)[/_.-])?({'|'.join(_MEASURED_FIRST)})", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class SplitFiles:
    """Files of one data set by split, one of which is `train` and one `test`."""

    name: str
    files: Mapping[str, DataFile]
    """Split -> file in the order train, dev, test; `dev` stands for all names of a validation split."""


@dataclass
class _OpenSplits:
    names: list[str] = field(default_factory=list)
    files: dict[str, DataFile] = field(default_factory=dict)


def group_splits(files: Iterable[DataFile]) -> tuple[list[SplitFiles], list[DataFile]]:
    """Return the data sets with a training and a test split, and the files that belong to none of them."""
    files = list(files)
    groups: dict[str, _OpenSplits] = {}
    for file in files:
        if match := _SPLIT.fullmatch(file.place):
            base, split = match[1] or "", match[2].lower()
            split = "dev" if split in _DEV else split
            group = groups.setdefault(base, _OpenSplits())
            # The path of a folder that was itself named is not a part of the names of its files.
            rest = file.name.removesuffix(match[2]).rstrip("/_.-")
            group.names.append(rest or PurePath(base).name)
            group.files.setdefault(split, file)
    found = [
        SplitFiles(group.names[0], {name: group.files[name] for name in _ORDER if name in group.files})
        for group in groups.values()
        if group.files.keys() >= {"train", "test"}
    ]
    taken = {file.place for splits in found for file in splits.files.values()}
    return found, [file for file in files if file.place not in taken]


def other_splits(found: Iterable[FoundTask], kept: Container[str]) -> dict[str, str]:
    """Return the tasks that are splits of a data set of which another split is measured: name -> reason.

    Of the splits of a set, which have the same columns, the test split is measured, else the first validation
    split, else the training split.

    Args:
        found: all tasks.
        kept: names of tasks that are measured in any case.
    """
    sets: dict[tuple[str, frozenset[str]], dict[str, FoundTask]] = {}
    for each in found:
        for file in each.files:
            if match := _SPLIT.fullmatch(file.place):
                sets.setdefault((match[1] or "", file.columns), {}).setdefault(match[2].lower(), each)
    reasons = {}
    for splits in sets.values():
        best = min(splits, key=_MEASURED_FIRST.index)
        for split, each in splits.items():
            if split != best and len(each.files) == 1 and each.task.name not in kept:
                reasons[each.task.name] = f"split {split}; split {best} of the same set is measured"
    return reasons
