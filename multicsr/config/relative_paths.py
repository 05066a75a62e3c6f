"""Relative paths of data files in a configuration that is read from another directory.

A relative path begins at the current directory. A path that exists only beside the configuration is also
accepted. Models and the store begin at the current directory only: their names are part of what identifies
results, so that another spelling of a model would have every row written again.
"""

import os
from collections.abc import Callable
from functools import partial
from glob import escape, has_magic, iglob
from pathlib import Path

_FILES = (
    "input.paths",
    "generate.prompts",
    "generate.demonstrations.triplets",
    "score.calibrate",
    "train.dev",
    "train.keep",
    "train.extra_triplets",
    "evaluate.data",
)
"""Settings that name files or directories to read."""


def find_beside(tree: dict[str, object], folder: Path) -> None:
    """Let relative paths that exist only beside the configuration lead there from the current directory.

    Args:
        tree: sections of the configuration; its paths are replaced. What is not valid stays as it is.
        folder: directory of the configuration.
    """
    if os.path.realpath(folder) == os.path.realpath(os.curdir):
        return

    def found(setting: str, path: str) -> str:
        if setting == "generate.prompts" and "." not in path:  # without an ending it names a shipped set
            return path
        return _found(path, folder)

    change_paths(tree, found)


def change_paths(tree: dict[str, object], change: Callable[[str, str], str]) -> None:
    """Replace all paths of data files.

    Args:
        tree: sections of the configuration.
        change: called with the dotted name of a setting and each of its paths; it returns the new path.
    """
    for setting in _FILES:
        *sections, key = setting.split(".")
        settings: object = tree
        for section in sections:
            settings = settings.get(section) if isinstance(settings, dict) else None
        if isinstance(settings, dict) and key in settings:
            settings[key] = _changed(settings[key], partial(change, setting))


def _changed(value: object, change: Callable[[str], str]) -> object:
    """Return a setting with its paths changed: a text, a list, or mappings with `path`."""
    if isinstance(value, list):
        return [_changed(each, change) for each in value]
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        return {**value, "path": change(value["path"])}
    return change(value) if isinstance(value, str) else value


def _found(path: str, folder: Path) -> str:
    """Return the path, or the one beside the configuration if that alone leads somewhere."""
    is_elsewhere = "://" in path or path.startswith("~") or os.path.isabs(path)
    if not path or "\0" in path or is_elsewhere or _leads_somewhere(path):
        return path
    place = os.path.relpath(os.path.realpath(folder))
    beside = os.path.join(place, path)  # `..` behind a link is left to the system, which follows the link
    if os.path.lexists(beside):
        return beside
    pattern = os.path.join(escape(place), path)
    return pattern if _matches(pattern) else path


def _leads_somewhere(path: str) -> bool:
    """Return True if a path or glob matches anything."""
    return os.path.lexists(path) or _matches(path)


def _matches(pattern: str) -> bool:
    """Return True if a pattern with wildcards matches anything."""
    return has_magic(pattern) and any(iglob(pattern, recursive=True))
