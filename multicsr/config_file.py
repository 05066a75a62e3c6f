"""Reading of a configuration from YAML and `--set section.key=value`, with one line for each mistake."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from multicsr import hashing
from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.yaml_file import load_yaml

_FOLDED = re.compile(r"s3:/{1,2}(.+)")
"""An s3:// URI, also with one slash, because pathlib merges the two."""


def load_config(path: Path | str, overrides: Sequence[str] = (), checksum: str | None = None) -> Config:
    """Read a YAML file and apply `section.key=value` overrides (the value is YAML).

    Args:
        path: path of a file, or an s3:// URI; a bucket is accessed with the settings of the AWS chain
            (AWS_ENDPOINT_URL), because no configuration has been read yet.
        overrides: `section.key=value` strings, in the order in which they are applied.
        checksum: `checksum` of the bytes of the file that was submitted; None: the file is trusted.

    Raises:
        ConfigError: the configuration is not valid; one line for each mistake, with setting and remedy.
        RunError: the bucket cannot be reached, or the file is not in it.
    """
    config, mistakes = load_with_mistakes(path, overrides, checksum)
    if config is None or mistakes:
        raise ConfigError(*mistakes)
    return config


def load_with_mistakes(
    path: Path | str, overrides: Sequence[str] = (), checksum: str | None = None
) -> tuple[Config | None, list[str]]:
    """Read a configuration as far as it is valid, for a check that finds all mistakes at once.

    Args:
        path: see `load_config`.
        overrides: likewise.
        checksum: likewise.

    Returns:
        The configuration without the settings that are wrong, or None if nothing can be read without them;
        and one line for each mistake.

    Raises:
        ConfigError: the file does not exist, is not YAML, or has another checksum.
        RunError: the bucket cannot be reached, or the file is not in it.
    """
    tree, mistakes = _read(path, checksum)
    for override in overrides:
        try:
            _override(tree, override)
        except ConfigError as error:
            mistakes.append(str(error))
    config, wrong = _validated(tree)
    mistakes += [f"{path}: {line}" for line in wrong]
    return config, list(dict.fromkeys(mistakes))


def _validated(tree: dict[str, object]) -> tuple[Config | None, list[str]]:
    """Return the settings of a tree without those that are wrong, and one line for each wrong one.

    What is wrong only after other settings were removed is removed too, without a line.
    """
    mistakes: list[str] = []
    while True:
        try:
            return Config.model_validate(tree), mistakes
        except ValidationError as error:
            problems = error.errors()
        mistakes = mistakes or [_explain(problem) for problem in problems]
        if not any([_remove(tree, problem["loc"]) for problem in problems if problem["type"] != "missing"]):
            return None, mistakes


def _remove(tree: dict[str, object], place: Sequence[int | str]) -> bool:
    """Delete the setting at a place, or the nearest one above it; return False if there is none."""
    node: object = tree
    found: tuple[dict[str, object], str] | None = None
    for key in map(str, place):
        if not isinstance(node, dict) or key not in node:
            break
        found, node = (node, key), node[key]
    if found is None:
        return False
    del found[0][found[1]]
    return True


def _read(path: Path | str, checksum: str | None) -> tuple[dict[str, object], list[str]]:
    """Return the sections of a file, and one line for every key that occurs twice."""
    try:
        data = _data(path)
        if checksum is not None and hashing.checksum(data) != checksum:
            raise ConfigError(f"{path} is not the configuration that was submitted; submit the job again")
        tree, twice = load_yaml(data)
    except FileNotFoundError as error:
        raise ConfigError(f"no configuration file {path}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not a configuration: it is nested too deep") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as `input:`, found no mapping")
    return tree, [f"{path}: {line}" for line in twice]


def _data(path: Path | str) -> bytes:
    folded = _FOLDED.match(str(path))
    if folded is None:
        return Path(path).read_bytes()
    from multicsr.storage.store import Store

    store, name = Store.holding(f"s3://{folded[1]}")
    return store.read_bytes(name)


def _override(tree: dict[str, object], override: str) -> None:
    key, equals, value = override.partition("=")
    *sections, name = key.split(".")
    if not equals or not name:
        raise ConfigError(f"--set {override!r}: write section.key=value")
    node = tree
    for section in sections:
        child = node.setdefault(section, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {section} is not a section")
        node = child
    try:
        node[name], twice = load_yaml(value)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"--set {override!r}: the value is not YAML") from error
    if twice:
        raise ConfigError(f"--set {override!r}: {twice[0]}")


def _explain(problem: ErrorDetails) -> str:
    """Return one line about a problem; for an unknown key it suggests the most similar known key."""
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *parents, key = (str(part) for part in problem["loc"])
        known = list(_fields(parents))
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {where!r}; {remedy}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], Mapping | BaseModel) else f" (given: {problem['input']!r})"
    return f"{where}: {message}{given}" if where else message + given


def _fields(parents: Sequence[str]) -> Iterator[str]:
    """Yield the names of the fields of the section at the path `parents`."""
    model: type[BaseModel] = Config
    for parent in parents:
        kinds = [model.model_fields[parent].annotation, *_arguments(model.model_fields[parent].annotation)]
        model = next(k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel))
    yield from model.model_fields


def _arguments(annotation: object) -> tuple[object, ...]:
    return getattr(annotation, "__args__", ())
