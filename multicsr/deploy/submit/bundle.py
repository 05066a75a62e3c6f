"""The bundle that is sent to a cluster: the configuration, and the data files it names by a relative path.

A relative path is a file of this machine. An absolute path is a file that all machines of the cluster have.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path, PurePath

import yaml
from pydantic import JsonValue

from multicsr.config import Config, TripletFile
from multicsr.config.relative_paths import change_paths
from multicsr.errors import ConfigError
from multicsr.prompts import AUTO, shipped_prompt_sets

CONFIG_FILE = "config.yaml"
_GENERATION = ("generate.prompts", "generate.demonstrations.triplets", "score.calibrate")
_TRAINING = ("train.dev", "train.keep", "train.extra_triplets")
_READS = {
    "generate": _GENERATION,
    "curate": ("score.calibrate",),
    "train": _TRAINING,
    "evaluate": ("evaluate.data",),
    "refresh": (*_GENERATION, *_TRAINING, "evaluate.data"),
}
"""Settings that name data files, by the job that reads them."""
_READS_INPUT = ("ingest", "refresh")
"""Jobs that read `input.paths`, of which nothing is sent."""
_TASKS = ("evaluate.data", "train.keep")
"""Settings that name labelled files and directories of them."""
_READS_FOR_LEAKS = {"generate": ("evaluate.data", "train.dev"), "train": ("evaluate.data",)}
"""Settings that name further data files of a job if `evaluate.drop_leaks` is set."""
_TRIPLETS = ("generate.demonstrations.triplets", "train.extra_triplets")
"""Settings that name files of labelled triplets."""
_MODELS = (
    "llm.model",
    "llm.vllm.lora",
    "generate.demonstrations.encoder",
    "score.model",
    "train.encoder",
    "train.mask.model",
)
"""Settings that name weights. Weights are not sent."""


@dataclass(frozen=True)
class Bundle:
    """A job's configuration with its data files."""

    job: str
    config: Config
    files: Mapping[str, bytes]
    """Contents of the data files, by the file name on the cluster, where all lie in one folder."""
    sent: Mapping[str, tuple[str, ...]]
    """Map from a setting to the names of the files that replace its value."""
    digest: str
    """Hash of the job, the configuration and the files. Jobs with different digests do different work."""

    def text(self, folder: str) -> str:
        """Return the configuration as YAML, for a cluster on which the files lie in `folder`."""
        tree = self.config.model_dump(mode="json", exclude_unset=True)
        for setting, names in self.sent.items():
            *sections, key = setting.split(".")
            section = reduce(getitem, sections, tree)
            places = [f"{folder}/{name}" for name in names]
            if setting in _TASKS:
                section[key] = self._kept(setting) + places
            elif setting in _TRIPLETS:
                for file in section[key]:
                    if _here(file["path"]):
                        file["path"] = f"{folder}/{PurePath(file['path']).name}"
            else:
                section[key] = places[0]
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)

    def _kept(self, setting: str) -> list[str]:
        return [path for path in values(self.config, setting) if not _here(path)]


def pack(config: Config, job: str) -> Bundle:
    """Read the data files of a job.

    Raises:
        ConfigError: a file is missing, a model lies on this machine, or two different files have
            the same name.
    """
    for setting in _MODELS:
        for name in values(config, setting):
            if _here(name) and Path(name).exists():
                kind = "directory" if Path(name).is_dir() else "file"
                raise ConfigError(
                    f"{setting}: {name} is a {kind} of this machine; give the absolute path it has in "
                    "the image, or a Hugging Face id"
                )
    files: dict[str, bytes] = {}
    sent: dict[str, tuple[str, ...]] = {}
    leaks = _READS_FOR_LEAKS.get(job, ()) if config.evaluate.drop_leaks else ()
    for setting in (*_READS.get(job, ()), *leaks):
        paths = dict(_data_files(config, setting))
        for path, name in paths.items():
            _add(files, setting, path, name)
        if paths:
            sent[setting] = tuple(paths.values())
    return Bundle(job, config, files, sent, _digest(config, job, files))


def values(config: Config, setting: str) -> list[str]:
    """Return the values of a setting as strings: none, one, or all items of a list.

    Args:
        setting: dotted path of the setting, such as `train.dev`.
    """
    found: object = config
    for part in setting.split("."):
        found = getattr(found, part, None)
    if found is None:
        return []
    items = found if isinstance(found, list) else [found]
    return [item.path if isinstance(item, TripletFile) else str(item) for item in items]


def _here(path: str) -> bool:
    """Return whether a path means a file of this machine: it is relative and no URL."""
    return "://" not in path and not PurePath(path).is_absolute()


def _data_files(config: Config, setting: str) -> Iterator[tuple[Path, str]]:
    """Yield (path here, name on the cluster) of the files that a setting names."""
    for value in values(config, setting):
        if not _here(value) or (setting == "generate.prompts" and value in (AUTO, *shipped_prompt_sets())):
            continue
        path = Path(value)
        if path.is_dir() and setting in _TASKS:
            from multicsr.stages.evaluate.kinds.retrieval_files import flat_name
            from multicsr.stages.evaluate.tasks import data_files

            yield from ((file, flat_name(file)) for file in data_files(path))
        elif path.is_file():
            yield path, path.name
        else:
            raise ConfigError(f"{setting}: no file {value} here; an absolute path means one of the cluster's")


def _add(files: dict[str, bytes], setting: str, path: Path, name: str) -> None:
    data = path.read_bytes()
    if name == CONFIG_FILE or files.setdefault(name, data) != data:
        raise ConfigError(f"{setting}: {path}: another file that is sent has this name; rename one of them")


def _digest(config: Config, job: str, files: Mapping[str, bytes]) -> str:
    """Return the hash of a job.

    Of a path relative to the caller's directory only the name is part of it: the file is sent with the job,
    or the job does not read it.
    """

    def without_directory(setting: str, path: str) -> str:
        is_read_there = setting == "input.paths" and job in _READS_INPUT
        return path if is_read_there or not _here(path) else os.path.basename(os.path.abspath(path))

    tree = config.model_dump(mode="json")
    change_paths(tree, without_directory)
    facts: dict[str, JsonValue] = {
        "job": job,
        "config": tree,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
