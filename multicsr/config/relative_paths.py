"""Relative paths of data files in a configuration that is read from another directory.

A relative path begins at the current directory. What is not there, but beside the configuration, is meant
as well. Models and the store begin at the current directory only: their names are part of what identifies
results, so that another spelling of a model would have every row written again.
"""

import os
from collections.abc import Callable
from glob import glob, has_magic
from pathlib import Path

_FILES = (
    ("input", "paths"),
    ("generate", "prompts"),
    ("score", "calibrate"),
    ("train", "dev"),
    ("train", "keep"),
    ("train", "extra_triplets"),
    ("evaluate", "data"),
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
    for section, key in _FILES:
        settings = tree.get(section)
        if not isinstance(settings, dict) or key not in settings:
            continue
        if key != "prompts" or "." in str(settings[key]):  # without an ending it is the name of a shipped set
            settings[key] = _changed(settings[key], lambda path: _found(path, folder))


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
    beside = os.path.normpath(os.path.join(folder, path))
    return os.path.relpath(beside) if _leads_somewhere(beside) else path


def _leads_somewhere(path: str) -> bool:
    """Return True if a path or glob matches anything."""
    return os.path.lexists(path) or (has_magic(path) and bool(glob(path, recursive=True)))
