"""Local copies of small data files that a configuration names in a bucket. Each process has its own."""

import tempfile
from functools import cache
from pathlib import Path


def local_copy(path: str | Path) -> Path:
    """Return a local path of a file: the path itself, or for an s3:// URI a copy with the same file name.

    The bucket is accessed with the settings of the standard AWS chain (AWS_ENDPOINT_URL), because the
    callers have no configuration of this project.

    Raises:
        RunError: the bucket cannot be reached, or there is no such file.
    """
    text = str(path)
    return _copied(text) if text.startswith("s3://") else Path(path)


@cache
def _copied(uri: str) -> Path:
    from multicsr.storage.store import Store

    store, name = Store.holding(uri)
    target = Path(tempfile.mkdtemp(dir=_folder().name), name)
    store.download_file(name, target)
    return target


@cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    """Return the temporary folder of this process; it is deleted when the process ends."""
    return tempfile.TemporaryDirectory(prefix="multicsr-")
