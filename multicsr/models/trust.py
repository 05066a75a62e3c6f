"""Code that comes with a model: it is run only if a setting permits it. This module imports nothing heavy."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multicsr.errors import ConfigError

_PERMISSIONS = {
    "train.encoder": "set train.trust_remote_code: true",
    "train.mask.model": "set train.mask.trust_remote_code: true",
    "generate.demonstrations.encoder": "set generate.demonstrations.trust_remote_code: true",
    "score.model": "set score.trust_remote_code: true",
    "encoder": "give --trust-remote-code",
    "MODEL": "give --trust-remote-code",
}
"""Permissions to run a model's code, by the setting that names the model."""


@contextmanager
def loading_trusted(name: str, setting: str, is_trusted: bool) -> Iterator[None]:
    """Name the setting if a model that is loaded in the block needs code of its own that may not be run.

    Raises:
        ConfigError: the model needs such code.
    """
    try:
        yield
    except ConfigError as error:
        if is_trusted or "trust_remote_code" not in str(error):
            raise
        raise ConfigError(_describe(name, setting)) from error


def require_trusted_modules(located: str, name: str, setting: str, is_trusted: bool) -> None:
    """Raise if a directory of sentence-transformers has modules whose code may not be run.

    Code of the transformer itself is found when the model is loaded.

    Args:
        located: the directory; anything else is not looked at.
        name: name of the model in the configuration.
        setting: the setting that holds the name.
        is_trusted: the code may be run.

    Raises:
        ConfigError: there are such modules.
    """
    modules = Path(located) / "modules.json"
    if is_trusted or not modules.is_file():
        return
    try:
        types = [str(module["type"]) for module in json.loads(modules.read_text(encoding="utf-8"))]
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{setting}: {modules} is damaged: {error}; take a complete copy") from error
    if not all(each.startswith("sentence_transformers.") for each in types):
        raise ConfigError(_describe(name, setting))


def _describe(name: str, setting: str) -> str:
    permission = _PERMISSIONS.get(setting, "set trust_remote_code: true")
    return f"{setting}: {name} needs code that comes with it; read that code, then {permission} to run it"
