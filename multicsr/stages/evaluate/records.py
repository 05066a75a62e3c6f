"""Records in the artifact `evaluation` besides the figures themselves."""

from typing import TypeVar

from pydantic import TypeAdapter

from multicsr.storage.versions import Snapshot

R = TypeVar("R")
ARTIFACT = "evaluation"
"""Name of the artifact."""


def read_record(snapshot: Snapshot, name: str, adapter: TypeAdapter[R]) -> R | None:
    """Return a record of the evaluation of a version; None if the evaluation has none of this name.

    Raises:
        RunError: the record is damaged or gone.
    """
    if ARTIFACT not in snapshot:
        return None
    path = f"{snapshot.folder(ARTIFACT)}/{name}"
    if path not in {entry.path for entry in snapshot.manifest(ARTIFACT).files}:
        return None
    remedy = "; delete it and run `multicsr run CONFIG` again"
    return snapshot.store.read_json(path, adapter, remedy, "; `multicsr run CONFIG` makes it again")
