"""Conversion of a GGUF model to an ordinary directory of safetensors, which every engine loads.

The directories lie beside the models that transformers downloads, in `$HF_HOME/multicsr/gguf`, where all
processes of a machine find them. Their names hold the digest of the GGUF file, the version of the conversion
and the data type. A directory appears when it is complete.
"""

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from multicsr.errors import ConfigError
from multicsr.messages.extras import require_extra
from multicsr.models.gguf_file import GgufFile
from multicsr.models.gguf_metadata import GgufMetadata
from multicsr.models.gguf_model import read_model
from multicsr.models.gguf_tokenizer import check_saved, read_tokenizer
from multicsr.models.resolve import loading_model, quiet_loading

if TYPE_CHECKING:
    import torch

CONVERSION = 1
"""Version of the conversion. It is part of the fingerprint; raise it when a converted model changes."""
_UNFINISHED = "unfinished-"
_MODEL = "model.gguf"


def converted(gguf: GgufFile, dtype: str, setting: str) -> Path:
    """Return the directory of a converted model; make it if there is none yet.

    Args:
        gguf: the model.
        dtype: data type of the weights, a name in torch.
        setting: the setting it came from, for the error message.

    Raises:
        ConfigError: the package `gguf` is missing, the model is damaged or of an architecture that
            transformers does not read, or the directory cannot be written.
    """
    import torch
    from safetensors import SafetensorError

    home = conversion_folder()
    folder = home / f"{gguf.digest()}-{CONVERSION}-{dtype}"
    if folder.is_dir():
        return folder
    require_extra("gguf", f"{setting}: {gguf.name}")
    try:
        with _scratch(home) as scratch:
            if not folder.is_dir():
                _convert(gguf, scratch, getattr(torch, dtype), setting).rename(folder)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{setting}: cannot write the converted {gguf.name} below {home}: "
            f"{' '.join(str(error).split())}; free some space, or set HF_HOME to a folder that can be written"
        ) from error
    return folder


def conversion_folder() -> Path:
    """Return the folder of all converted models of this machine."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME).expanduser() / "multicsr" / "gguf"


@contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    """Yield a temporary folder in `home`. One process has it at a time; the others wait.

    A process that was killed leaves its folder; the next one that gets here deletes it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in home.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left)
        with TemporaryDirectory(dir=home, prefix=_UNFINISHED) as folder:
            yield Path(folder)


def _convert(gguf: GgufFile, scratch: Path, dtype: "torch.dtype", setting: str) -> Path:
    """Convert a model in a temporary folder, and return the directory in it."""
    # In a folder of its own: transformers would also read other files that lie beside the model.
    source, target = scratch / "source", scratch / "model"
    source.mkdir()
    _provide(gguf.parts, source / _MODEL)
    metadata = _read_metadata(gguf, source / _MODEL, setting)
    _require_space(scratch, metadata.num_parameters * dtype.itemsize, f"{setting}: {gguf.name}")
    with loading_model(gguf.name, setting):
        tokenizer = read_tokenizer(source, _MODEL, metadata)
        model = read_model(source, _MODEL, metadata, dtype)
    with quiet_loading():
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    with loading_model(gguf.name, setting):
        check_saved(tokenizer, target)
    return target


def _provide(parts: Sequence[Path], file: Path) -> None:
    """Make a file of the parts; a link if there is only one."""
    if len(parts) == 1:
        file.symlink_to(parts[0].absolute())
        return
    with file.open("wb") as whole:
        for part in parts:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, whole)


def _read_metadata(gguf: GgufFile, file: Path, setting: str) -> GgufMetadata:
    try:
        return GgufMetadata(file)
    except (ValueError, LookupError, OverflowError) as error:
        raise ConfigError(
            f"{setting}: {gguf.name} is no GGUF file, or damaged or cut "
            f"({' '.join(str(error).split())}); take a complete copy"
        ) from error


def _require_space(folder: Path, needed: int, model: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"{model} takes {needed / 2**30:.1f} GiB when it is converted, {free / 2**30:.1f} GiB are free "
            f"in {folder.parent}; free some space, or set HF_HOME to another disk"
        )
