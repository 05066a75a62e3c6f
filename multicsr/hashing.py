"""The hash of everything that is compared by content: BLAKE2b."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path


def checksum(data: bytes | memoryview) -> str:
    """Return the BLAKE2b-128 hash of the bytes, 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digests_after(beginning: bytes, endings: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the hash of `beginning` + each ending, 16 bytes: its `checksum` without hex digits."""
    begun = hashlib.blake2b(beginning, digest_size=16)
    for ending in endings:
        hasher = begun.copy()  # takes less time than a new one
        hasher.update(ending)
        yield hasher.digest()


def checksum_of_file(path: Path) -> str:
    """Return the `checksum` of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def hash_64(key: str) -> int:
    """Return the BLAKE2b-64 hash of a text, for seeds and draws that depend on nothing but this key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
