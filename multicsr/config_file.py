"""Reading of a configuration from YAML and `--set section.key=value`, with one line for each mistake."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from multicsr import hashing
from multicsr.config import Config
from multicsr.config.mistakes import explain
from multicsr.config.relative_paths import find_beside
from multicsr.config.yaml_file import key_lines, load_yaml
from multicsr.errors import ConfigError

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
    if _FOLDED.match(str(path)) is None:
        find_beside(tree, Path(path).parent)
    for override in overrides:
        try:
            _override(tree, override)
        except ConfigError as error:
            mistakes.append(str(error))
    config, wrong = _validated(tree)
    if wrong:
        sources = setting_sources(path, overrides)
        mistakes += [f"{nearest_source(sources, keys) or path}: {line}" for keys, line in wrong]
    return config, list(dict.fromkeys(mistakes))


def build_config(tree: dict[str, object], overrides: Sequence[str]) -> Config:
    """Return the configuration of settings that are in no file, with overrides.

    Args:
        tree: sections; the overrides are written into it.
        overrides: `section.key=value` strings.

    Raises:
        ConfigError: a setting is not valid; one line for each mistake.
    """
    for override in overrides:
        _override(tree, override)
    config, wrong = _validated(tree)
    if config is None or wrong:
        raise ConfigError(*dict.fromkeys(line for _, line in wrong))
    return config


def nearest_source(sources: Mapping[tuple[str, ...], str], keys: tuple[str, ...]) -> str | None:
    """Return where a setting, or the nearest section above it, comes from."""
    places = (keys[:end] for end in range(len(keys), 0, -1))
    return next((sources[place] for place in places if place in sources), None)


def setting_sources(path: Path | str, overrides: Sequence[str] = ()) -> dict[tuple[str, ...], str]:
    """Return where each setting or section that is given comes from, by its path: `file:line` or `--set`.

    Args:
        path: see `load_config`, which has read it before.
        overrides: likewise.
    """
    sources = {keys: f"{path}:{line}" for keys, line in key_lines(_data(path)).items()}
    for override in overrides:
        try:
            keys, value = _split_override(override)
        except ConfigError:
            continue  # `load_with_mistakes` reports it
        sources = {other: source for other, source in sources.items() if other[: len(keys)] != keys}
        for end in range(1, len(keys)):
            sources.setdefault(keys[:end], "--set")  # a section that the file does not have
        sources[keys] = "--set"
        sources |= dict.fromkeys(key_paths(value, keys), "--set")
    return sources


def flat_settings(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted name and the value of every setting in a tree of sections; an empty one is a value."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat_settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def setting_as_text(value: object) -> str:
    """Return the value of a setting as text: a string as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def key_paths(value: object, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all keys in a value at the path `keys`."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield (*keys, str(key))
            yield from key_paths(child, (*keys, str(key)))


def _validated(tree: dict[str, object]) -> tuple[Config | None, list[tuple[tuple[str, ...], str]]]:
    """Return the settings of a tree without those that are wrong, and path and line for each wrong one.

    What is wrong only after other settings were removed is removed too, without a line.
    """
    mistakes: list[tuple[tuple[str, ...], str]] = []
    while True:
        try:
            return Config.model_validate(tree), mistakes
        except ValidationError as error:
            problems = error.errors()
        mistakes = mistakes or [(tuple(map(str, each["loc"])), explain(each)) for each in problems]
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
    (*sections, name), value = _split_override(override)
    node = tree
    for section in sections:
        child = node.setdefault(section, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {section} is not a section")
        node = child
    node[name] = value


def _split_override(override: str) -> tuple[tuple[str, ...], object]:
    """Return the path and the value of a `section.key=value` override."""
    key, equals, text = override.partition("=")
    keys = tuple(key.split("."))
    if not equals or not all(keys):
        raise ConfigError(f"--set {override!r}: write section.key=value")
    try:
        value, twice = load_yaml(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"--set {override!r}: the value is not YAML") from error
    if twice:
        raise ConfigError(f"--set {override!r}: {twice[0]}")
    return keys, value
