"""Arguments and options that several commands share, and what they stand for."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multicsr.config_file import load_config
from multicsr.errors import ConfigError
from multicsr.messages.terminal import echo

if TYPE_CHECKING:
    from multicsr.config import Config
    from multicsr.storage.store import Store
    from multicsr.storage.versions import Snapshot

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.")]
StorePlace = Annotated[
    str, typer.Argument(metavar="STORE", help="Directory or s3:// URI, or the YAML file of a run.")
]
VersionNumber = Annotated[
    int | None, typer.Option("--version", min=1, help="Default: the current one; see `multicsr versions`.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="section.key=value", help="Override one setting; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]


def read_settings(config: Path, overrides: list[str] | None) -> "Config":
    """Return the configuration in a YAML file with the values of --set."""
    return load_config(config, overrides or ())


def open_store(place: str, overrides: list[str] | None) -> "Store":
    """Return the store at a path or URI, or the store of the configuration in a YAML file.

    Raises:
        ConfigError: the configuration is not valid, or overrides are given without a YAML file.
    """
    from multicsr.storage.store import Store

    if place.endswith((".yaml", ".yml")):
        return Store.of(read_settings(Path(place), overrides))
    if overrides:
        raise ConfigError("--set has no effect on a store; give the YAML file of a run")
    return Store.open(place)


def open_version(place: str, overrides: list[str] | None, version: int | None) -> "Snapshot":
    """Return the artifacts of a version of a store (see `open_store`); None: the current version."""
    from multicsr.storage.versions import snapshot_of

    return snapshot_of(open_store(place, overrides), version)


def echo_json(found: object) -> None:
    """Print one JSON document in ASCII, so that no terminal or pipe changes it."""
    echo(json.dumps(found, indent=2))
