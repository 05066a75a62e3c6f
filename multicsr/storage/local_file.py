"""Local files that a user names and that are written whole or not at all."""

import os
from collections.abc import Collection
from pathlib import Path

from multicsr.errors import ConfigError, RunError


def require_output(path: Path, option: str, endings: Collection[str] = ()) -> None:
    """Raise ConfigError if a file cannot be written, before work that may take hours.

    Args:
        path: the file.
        option: the option that names it, for messages.
        endings: endings that a name may have, each of which names a format; none: any.
    """
    if endings and path.suffix not in endings:
        raise ConfigError(f"{option}: {path} must end in {', '.join(endings)}, which names the format")
    if path.is_dir():
        raise ConfigError(f"{option}: {path} is a directory; name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"{option}: there is no directory {path.parent}; create it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{option}: {path} cannot be written by this user; name another file")


def write_output(path: Path, text: str) -> None:
    """Write a text as `write_whole` does.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error


def write_whole(path: Path, text: str) -> None:
    """Write a text as UTF-8 in one step; if that fails, a file that was there before stays as it was.

    A link stays, and the file that it leads to is replaced. A pipe or a device, such as /dev/stdout, is
    written to as it is.

    Raises:
        OSError: the file cannot be written.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    real = path.resolve()
    partial = real.with_name(f"{real.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(real)
    finally:
        partial.unlink(missing_ok=True)
