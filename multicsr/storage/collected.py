"""Names of artifacts that gc has deleted. They are never used again.

A delete cannot be fenced: a gc that is suspended between its last check of the lease and a delete sends the
delete when it resumes, perhaps hours later, while another job publishes. Therefore gc announces in the log
which artifacts it is about to delete (only the holder of the lease can do that), and all announced names are
marked here before the first delete. A stage that would make an artifact with a marked name uses the name of
the next generation, and a rollback to a marked artifact is rejected. So a late delete never removes anything
that is still in use.
"""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import JsonValue

from multicsr.storage.manifest import GENERATION, fingerprint
from multicsr.storage.store import Store

MARKS = "collected"
"""Folder of the marks, one file for each name."""
_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]*")


def is_key(name: str) -> bool:
    """Return True if the name is valid for an artifact."""
    return _KEY.fullmatch(name) is not None


def mark_collected(store: Store, keys: Sequence[str]) -> None:
    """Mark the names of artifacts that gc announced in the log."""
    with ThreadPoolExecutor(max_workers=16) as threads:
        list(threads.map(lambda key: store.create_text(f"{MARKS}/{key}", key), keys))


def is_collected(store: Store, key: str) -> bool:
    """Return True if the name `key` is marked: gc announced that it deletes this artifact."""
    return store.exists(f"{MARKS}/{key}")


def collected(store: Store) -> set[str]:
    """Return the names of all marked artifacts."""
    return {name.removeprefix(f"{MARKS}/") for name in store.names(MARKS)}


def unused(store: Store, settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the settings, with a generation added if their fingerprint is marked as deleted."""
    wanted, generation = dict(settings), 1
    while is_collected(store, fingerprint(wanted)):
        generation += 1
        wanted[GENERATION] = generation
    return wanted


def unused_name(store: Store, base: str) -> str:
    """Return the first name that is not marked: the fingerprint itself, or with a generation.

    Args:
        base: a fingerprint without generation.
    """
    name, generation = base, 1
    while is_collected(store, name):
        generation += 1
        name = f"{base}-{generation}"
    return name
