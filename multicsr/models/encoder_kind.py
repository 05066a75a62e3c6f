"""Properties of an encoder that its files state, read without loading it."""

import json
from pathlib import Path

from multicsr.errors import ConfigError
from multicsr.models.resolve import resolve_model

_MODULES = "modules.json"
"""File in which sentence-transformers lists the modules of an encoder that it saved."""


def is_sentence_encoder(name: str, setting: str) -> bool:
    """Return True if sentence-transformers saved the encoder, so that it is trained for sentences already.

    A raw encoder, such as `google-bert/bert-base-uncased`, has no list of modules.

    Args:
        name: `all-MiniLM-L6-v2`, a directory, or a Hugging Face id, of which the list is downloaded.
        setting: the setting that the name came from, for messages.

    Raises:
        ConfigError: there is no such directory.
    """
    path = resolve_model(name, setting)
    if Path(path).is_dir():
        return (Path(path) / _MODULES).is_file()
    from transformers.utils.hub import cached_file

    found = cached_file(
        path,
        _MODULES,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found is not None


def require_sizes(name: str, setting: str, *, layers: int | None, max_length: int | None) -> None:
    """Raise if the files of an encoder state fewer layers or a lower length limit than a training asks for.

    An encoder that is no directory is not looked at; the training checks all of them again.

    Args:
        name: `all-MiniLM-L6-v2`, a directory, or a Hugging Face id.
        setting: the setting that the name came from, for messages.
        layers: number of layers to keep; None: all.
        max_length: maximum number of tokens of a sentence; None: that of the encoder.

    Raises:
        ConfigError: the encoder is too small, or one of these files is damaged.
    """
    path = Path(resolve_model(name, setting))
    has_layers = _stated(path / "config.json", "num_hidden_layers", setting)
    if layers is not None and has_layers is not None and layers > has_layers:
        raise ConfigError(f"train.layers: {layers} asked for, {name} has {has_layers}")
    limit = _stated(path / "sentence_bert_config.json", "max_seq_length", setting)
    if max_length is not None and limit is not None and max_length > limit:
        raise ConfigError(
            f"train.max_length: {max_length} asked for, {name} takes {limit} tokens; leave it unset for all"
        )


def _stated(file: Path, key: str, setting: str) -> int | None:
    """Return a number that a JSON file of a model states; None without the file or the number."""
    if not file.is_file():
        return None
    try:
        number = json.loads(file.read_text(encoding="utf-8")).get(key)
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{setting}: {file} is damaged: {error}; take a complete copy") from error
    return number if isinstance(number, int) else None
