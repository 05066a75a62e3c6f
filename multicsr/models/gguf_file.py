"""GGUF models (the format of llama.cpp) as they lie on disk: one file, or its parts."""

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from multicsr.errors import ConfigError
from multicsr.models.resolve import holds_weights

_PART = re.compile(r"(?P<whole>.+\.gguf)\.part(?P<number>\d+)", re.IGNORECASE)
"""Name of a part of a file that was cut at some byte, such as `model.gguf.part00`."""
_SPLIT = re.compile(r".+-\d{5}-of-\d{5}\.gguf", re.IGNORECASE)
"""Name that llama-gguf-split gives to a part, which is a GGUF file of its own."""


class GgufFile(NamedTuple):
    """A GGUF model: the bytes of its parts, one after the other."""

    name: str
    """Value of the setting."""
    parts: tuple[Path, ...]

    def digest(self) -> str:
        """Return a hash of the bytes, the same for one file and for its parts.

        A process reads the bytes once, and again if the size or the time of a part has changed.
        """
        return _digest(tuple((part, part.stat().st_size, part.stat().st_mtime_ns) for part in self.parts))


def find_gguf(name: str, setting: str) -> GgufFile | None:
    """Return the GGUF model that a name stands for, or None if the name is that of another model.

    Args:
        name: a .gguf file, or a directory without other weights that holds one, whole or in parts
            (`*.gguf.part00`). The parts may also lie in directories beside it, `NAME_part1` and so on.
        setting: the setting it came from, for the error message.

    Raises:
        ConfigError: there are several models, a part is missing, or llama-gguf-split made the parts.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return _whole([path], name, setting) if path.suffix.lower() == ".gguf" else None
    if not path.is_dir() or holds_weights(path):
        return None
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() == ".gguf" and file.is_file())
    if files:
        return _whole(files, name, setting)
    parts = _parts_below([path]) or _parts_below(path.absolute().parent.glob(f"{path.absolute().name}_part*"))
    return _joined(parts, name, setting) if parts else None


def _whole(files: list[Path], name: str, setting: str) -> GgufFile:
    """Return the model of the only file."""
    if any(_SPLIT.fullmatch(file.name) for file in files):
        raise ConfigError(
            f"{setting}: {name} is split into several GGUF files; join them with llama-gguf-split --merge"
        )
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:3])
        raise ConfigError(f"{setting}: {name} holds {len(files)} GGUF files ({names}); give the path of one")
    return GgufFile(name, (files[0],))


def _joined(parts: dict[str, dict[int, Path]], name: str, setting: str) -> GgufFile:
    """Return the model whose parts these are, by name of the whole and number."""
    if len(parts) > 1:
        raise ConfigError(f"{setting}: {name} holds parts of {len(parts)} GGUF files; keep those of one")
    [(whole, numbered)] = parts.items()
    first = min(numbered)
    missing = set(range(min(first, 1), max(numbered) + 1)) - set(numbered)
    if missing:
        raise ConfigError(f"{setting}: {name} lacks part {min(missing)} of {whole}; take a complete copy")
    return GgufFile(name, tuple(numbered[number] for number in sorted(numbered)))


def _parts_below(folders: Iterable[Path]) -> dict[str, dict[int, Path]]:
    """Return all parts of files below these folders, by name of the whole file and number of the part."""
    found: dict[str, dict[int, Path]] = {}
    for file in (file for folder in folders for file in folder.rglob("*.part*")):
        if match := _PART.fullmatch(file.name):
            found.setdefault(match["whole"], {})[int(match["number"])] = file
    return found


@cache
def _digest(parts: tuple[tuple[Path, int, int], ...]) -> str:
    """Return the hash of the bytes of files, given with size and time of change."""
    digest = hashlib.blake2b(digest_size=16)
    for path, _, _ in parts:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
