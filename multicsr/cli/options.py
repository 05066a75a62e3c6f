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
    from multicsr.tools.encoder_source import EncoderSource

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.")]
StorePlace = Annotated[
    str, typer.Argument(metavar="STORE", help="Directory or s3:// URI, or the YAML file of a run.")
]
ModelPlace = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="YAML file of a run, store, model directory, Hugging Face id or all-MiniLM-L6-v2.",
    ),
]
VersionNumber = Annotated[
    int | None, typer.Option("--version", min=1, help="Default: the current one; see `multicsr versions`.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="section.key=value", help="Override one setting; may be repeated."),
]
DropLeaks = Annotated[
    bool,
    typer.Option("--drop-leaks", help="Reject sentences that evaluate.data or train.dev has too."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]


def read_settings(config: Path, overrides: list[str] | None, drop_leaks: bool = False) -> "Config":
    """Return the configuration in a YAML file with the values of --set and of --drop-leaks."""
    return load_config(config, [*(overrides or ()), *(["evaluate.drop_leaks=true"] if drop_leaks else [])])


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


def open_encoder(place: str, overrides: list[str] | None, version: int | None) -> "EncoderSource":
    """Return the encoder of a run, of a store, or outside both.

    Args:
        place: the YAML file of a run, a store, or a model.
        overrides: values of --set.
        version: number of the version; None: the current one.

    Raises:
        ConfigError: there is no such place, or `overrides` or `version` has no effect on a model.
    """
    from multicsr.tools.encoder_source import EncoderSource, is_model, model_source

    if place.endswith((".yaml", ".yml")):
        settings = read_settings(Path(place), overrides)
        return EncoderSource(
            settings.name,
            open_version(place, overrides, version),
            settings.card,
            settings.train.trust_remote_code,
        )
    if not is_model(place):
        return EncoderSource(place, open_version(place, overrides, version))
    if overrides or version:
        option = "--set" if overrides else "--version"
        raise ConfigError(f"{option} has no effect on a model; give the YAML file of a run")
    return model_source(place)


def echo_json(found: object) -> None:
    """Print one JSON document in ASCII, so that no terminal or pipe changes it."""
    echo(json.dumps(found, indent=2))
