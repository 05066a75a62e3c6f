"""Files for the tests of the kinds of tasks, and the tasks that a kind finds among them."""

import json
from collections.abc import Sequence
from pathlib import Path

from multicsr.errors import ConfigError
from multicsr.stages.evaluate.kinds.reader import DataFile, FoundTask, Kind, UnusableFiles


def write_tsv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write a TSV file with a header; return its path."""
    lines = ["\t".join(map(str, row)) for row in (columns, *rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_json_lines(path: Path, records: Sequence[object]) -> Path:
    """Write JSON lines; return the path."""
    path.write_text("\n".join(map(json.dumps, records)) + "\n", encoding="utf-8")
    return path


def find(kind: Kind, *paths: Path) -> list[FoundTask]:
    """Return the tasks of a kind among files, which are named by their folder and file name."""
    results = list(kind.find([_data_file(path) for path in paths]))
    if unusable := [each.reason for each in results if isinstance(each, UnusableFiles)]:
        raise ConfigError(*unusable)
    return [each for each in results if isinstance(each, FoundTask)]


def _data_file(path: Path) -> DataFile:
    place = str(path).removesuffix(".gz").removesuffix(".tsv").removesuffix(".jsonl")
    return DataFile(path, place, place.rsplit("/", 1)[-1])
