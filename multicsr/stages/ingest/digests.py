"""Identity of an input file: a digest of its bytes. Nothing is reused because a path is the same.

`InputFile.state`, which is known without reading the file, only avoids reading a file again whose digest is
already known.
"""

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

from pydantic import TypeAdapter

from multicsr.artifacts import FileRecord
from multicsr.errors import DamagedFileError, RunError, SchemaError
from multicsr.hashing import checksum
from multicsr.stages.ingest.files import InputFile, file_state
from multicsr.storage.store import Store

_log = logging.getLogger(__name__)
_CACHE = "inputs/digests.json"
_ETAG = re.compile(r"[0-9a-f]{32}(?:-[0-9]+)?")
"""An ETag that is a digest of the bytes, or of the digests of the parts. Some servers use other ETags."""
_SETTLED_S = 2.0
"""Age of a change, in seconds, after which a later change certainly has another timestamp."""
_BYTES = 16
"""Length of a digest in bytes."""


class _Digests(FileRecord):
    """Digests of files, by the files' `InputFile.state`."""

    digests: dict[str, str]


_digests = TypeAdapter(_Digests)


def known_digests(store: Store, files: Sequence[InputFile]) -> dict[str, str]:
    """Return the digests, by path, of the files whose digest is known without reading their bytes."""

    kept = _kept(store)
    known = {file.path: _etag_digest(file) or kept.get(file.state) for file in files}
    return {path: digest for path, digest in known.items() if digest}


def keep_digests(store: Store, files: Sequence[InputFile], digests: dict[str, str]) -> None:
    """Save the digests of local files for the next ingest.

    A file that changed less than `_SETTLED_S` ago is left out, because its next change could have the same
    timestamp.

    Args:
        store: the store that keeps them.
        files: all input files.
        digests: path -> digest.
    """
    settled_s = time.time() - _SETTLED_S
    states = {
        file.state: digests[file.path] for file in files if not file.etag and file.changed_s < settled_s
    }
    if states != _kept(store):
        store.write_json(_CACHE, _Digests(digests=states))


def digest_file(file: InputFile, on_block: Callable[[bytes], object] | None = None) -> str:
    """Return the digest of a file's bytes, 32 hex digits.

    Args:
        file: the file.
        on_block: called with the bytes of a local file, block by block.

    Raises:
        RunError: the file cannot be read.
    """
    digest = _etag_digest(file)
    if digest is not None:
        return digest
    hasher = hashlib.blake2b(digest_size=_BYTES)
    try:
        with file.open() as raw:
            while block := raw.read(2**20):
                hasher.update(block)
                if on_block is not None:
                    on_block(block)
    except OSError as error:
        raise RunError(f"input.paths: cannot read {file.shown}: {error.strerror or error}") from error
    return hasher.hexdigest()


class Unchanged:
    """A check that a file did not change while it was read."""

    def __init__(self, file: InputFile, on_block: Callable[[bytes], object] | None = None) -> None:
        """Compute the digest of the file; see `digest_file` for `on_block`."""
        self._file = file
        self._before = self._state()
        self.digest = digest_file(file, on_block)
        """Digest of the bytes before the file is read."""

    def check(self) -> None:
        """Raise RunError if the content of the file has changed since this object was created."""
        state = self._state()
        if state != self._before and _digest_in_state(self._file, state) != self.digest:
            raise RunError(
                f"input.paths: {self._file.shown} changed while it was read; run again when it is complete"
            )

    def _state(self) -> tuple[int, ...]:
        if self._file.s3 is not None:
            return ()  # every ranged read requires the ETag
        try:
            return file_state(os.stat(self._file.path))
        except OSError as error:
            raise RunError(f"input.paths: cannot read {self._file.shown}: {error.strerror}") from error


@lru_cache(maxsize=64)
def _digest_in_state(file: InputFile, state: tuple[int, ...]) -> str:
    """Return the digest of a file; it is computed once by each process, not for each part that it reads."""
    return digest_file(file)


def _etag_digest(file: InputFile) -> str | None:
    """Return the digest of an object whose ETag is a digest of its bytes, otherwise None."""
    if not _ETAG.fullmatch(file.etag) or len({*file.etag[:32]}) == 1:
        return None
    return checksum(f"etag {file.bytes} {file.etag}".encode())


def _kept(store: Store) -> dict[str, str]:
    if not store.exists(_CACHE):
        return {}
    try:
        return store.read_json(_CACHE, _digests, "; input files are read again").digests
    except (DamagedFileError, SchemaError) as error:
        _log.warning("%s", error)
        return {}
