"""Local files that a user names and that are written whole or not at all."""

import os
from pathlib import Path


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
