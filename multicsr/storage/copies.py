"""Small data files that a configuration names in a bucket: a copy of the process's own."""

import tempfile
from functools import cache
from pathlib import Path


def local_copy(path: str | Path) -> Path:
    """A local file as it is; of an s3:// URI a copy under the same file name.

    The bucket is reached as the AWS chain says (AWS_ENDPOINT_URL): who reads has no configuration at hand.

    Raises:
        RunError: the bucket cannot be reached, or there is no such file.
    """
    text = str(path)
    return _copied(text) if text.startswith("s3://") else Path(path)


@cache
def _copied(uri: str) -> Path:
    from multicsr.store import Store

    store, name = Store.holding(uri)
    target = Path(tempfile.mkdtemp(dir=_folder().name), name)
    store.download_file(name, target)
    return target


@cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    """Goes with the process."""
    return tempfile.TemporaryDirectory(prefix="multicsr-")
