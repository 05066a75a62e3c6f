"""From a YAML file and `--set section.key=value` to a configuration, or to one line on what is wrong."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from multicsr.config import Config
from multicsr.errors import ConfigError

_FOLDED = re.compile(r"s3:/{1,2}(.+)")
"""A URI; pathlib makes one slash of two."""


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `section.key=value` overrides (the value is YAML).

    Args:
        path: of a file, or an s3:// URI; the bucket is then reached as the AWS chain says (AWS_ENDPOINT_URL).

    Raises:
        ConfigError: one line naming the setting and the remedy.
        RunError: the bucket cannot be reached, or the file is not there.
    """
    try:
        tree = yaml.safe_load(_text(path))
    except FileNotFoundError as error:
        raise ConfigError(f"no configuration file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as `input:`, found no mapping")
    for override in overrides:
        _override(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error


def _text(path: Path | str) -> str:
    folded = _FOLDED.match(str(path))
    if folded is None:
        return Path(path).read_text(encoding="utf-8")
    from multicsr.store import Store

    store, name = Store.holding(f"s3://{folded[1]}")
    return store.read_text(name)


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
        node[name] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not YAML") from error


def _explain(error: ValidationError) -> str:
    """The first problem as one line; for an unknown key, with the nearest known one."""
    problem = error.errors()[0]
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
    """Names of the fields of the section at `parents`."""
    model: type[BaseModel] = Config
    for parent in parents:
        kinds = [model.model_fields[parent].annotation, *_arguments(model.model_fields[parent].annotation)]
        model = next(k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel))
    yield from model.model_fields


def _arguments(annotation: object) -> tuple[object, ...]:
    return getattr(annotation, "__args__", ())
