"""Every setting of a configuration as it will be used, as YAML, each with where it comes from.

The text can be read back: a setting that has no effect, and would be an error if it were given, is a comment.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from multicsr.config import Config, Section
from multicsr.config_file import load_config, nearest_source, setting_sources
from multicsr.errors import MulticsrError
from multicsr.stages.train.recipe import resolved

Keys = tuple[str, ...]
_ENVIRONMENT: dict[Keys, tuple[str, ...]] = {
    ("s3", "endpoint"): ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    ("s3", "region"): ("AWS_REGION", "AWS_DEFAULT_REGION"),
}
"""Settings that the environment decides where they are unset, and its variables; the first one that is set
counts."""


class Setting(NamedTuple):
    """A setting with its value and origin."""

    keys: Keys
    value: object
    source: str
    is_given: bool
    """True if the file or --set gives it."""


def resolved_lines(path: Path, overrides: Sequence[str] = ()) -> Iterator[str]:
    """Yield the lines of the YAML text.

    Args:
        path: YAML file of the run.
        overrides: values of --set.

    Raises:
        ConfigError: the configuration is not valid.
    """
    config = load_config(path, overrides)
    yield from setting_lines(config, setting_sources(path, overrides), str(path), _by_encoder(config))


def setting_lines(
    config: Config,
    sources: Mapping[Keys, str],
    place: str,
    by_encoder: Mapping[Keys, object] = MappingProxyType({}),
) -> Iterator[str]:
    """Yield the lines of the YAML text of a configuration.

    Args:
        config: the configuration.
        sources: origin of each setting or section that is given, by its path.
        place: origin of settings that are given and not in `sources`.
        by_encoder: settings whose default depends on the encoder, with that default.
    """
    settings = [
        _with_source(keys, value, sources if is_given else {}, place, by_encoder.get(keys))
        for keys, value, is_given in _leaves(config, ())
    ]
    stated = _stated(settings)
    sections: list[str] = []
    for setting in settings:
        *parents, name = setting.keys
        for depth, parent in enumerate(parents):
            if sections[: depth + 1] != parents[: depth + 1]:
                has_effect = any(each[: depth + 1] == setting.keys[: depth + 1] for each in stated)
                yield _line(depth, f"{parent}:", "", is_comment=not has_effect)
        sections = parents
        is_comment = setting.keys not in stated
        source = f"{setting.source}; it has no effect here" if is_comment else setting.source
        yield _line(len(parents), f"{name}: {value_as_yaml(setting.value)}", source, is_comment=is_comment)


def _leaves(section: Section, keys: Keys) -> Iterator[tuple[Keys, object, bool]]:
    """Yield the path and the value of every setting, and whether it is given; sections come last."""
    values = {name: getattr(section, name) for name in type(section).model_fields}
    dumped = section.model_dump(mode="json")
    for name, value in values.items():
        if not isinstance(value, Section):
            yield (*keys, name), dumped[name], name in section.model_fields_set
    for name, value in values.items():
        if isinstance(value, Section):
            yield from _leaves(value, (*keys, name))


def _by_encoder(config: Config) -> dict[Keys, object]:
    """Return the settings whose default depends on the encoder, with that default; none if it is missing."""
    try:
        train = resolved(config).train
    except MulticsrError:
        return {}  # the check of the run reports it
    changed = train.model_fields_set - config.train.model_fields_set
    return {("train", name): getattr(train, name) for name in changed}


def _with_source(
    keys: Keys, value: object, sources: Mapping[Keys, str], path: str, by_encoder: object
) -> Setting:
    """Return a setting with its origin.

    Args:
        keys: path of the setting.
        value: its value.
        sources: result of `setting_sources`; empty if the setting is not given.
        path: the file, which is the origin of what a YAML merge brings in.
        by_encoder: default for this encoder; None: the default is the same for all.
    """
    if sources:
        below = (sources[place] for place in sources if place[: len(keys)] == keys)
        return Setting(keys, value, next(below, None) or nearest_source(sources, keys) or path, True)
    for variable in _ENVIRONMENT.get(keys, ()):
        if value is None and os.environ.get(variable):
            return Setting(keys, os.environ[variable], f"environment {variable}", False)
    if by_encoder is not None:
        return Setting(keys, by_encoder, "default for this encoder", False)
    return Setting(keys, value, "default", False)


def _stated(settings: Sequence[Setting]) -> set[Keys]:
    """Return the paths of the settings that may be stated together: all that are given, and most others."""
    tree: dict[str, object] = {}
    stated = set()
    for setting in settings:
        if setting.is_given:
            _put(tree, setting)
            stated.add(setting.keys)
    for setting in settings:
        if not setting.is_given:
            before = deepcopy(tree)
            _put(tree, setting)
            try:
                Config.model_validate(tree)
                stated.add(setting.keys)
            except ValidationError:
                tree = before
    return stated


def _put(tree: dict[str, object], setting: Setting) -> None:
    """Set a setting in a tree of sections."""
    *parents, name = setting.keys
    node: Any = tree
    for parent in parents:
        node = node.setdefault(parent, {})
    node[name] = setting.value


def value_as_yaml(value: object) -> str:
    """Return a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


def _line(depth: int, text: str, source: str, *, is_comment: bool) -> str:
    """Return a line, indented by its depth, with its source as a comment."""
    mark, origin = "# " if is_comment else "", f" # {source}" if source else ""
    return f"{'  ' * depth}{mark}{text}{origin}"
