"""Copies of the encoders in a store."""

import shutil
from pathlib import Path
from uuid import uuid4

from multicsr.artifacts import ENCODER
from multicsr.errors import RunError
from multicsr.storage.versions import Snapshot


def fetch_encoder(snapshot: Snapshot, target: Path) -> None:
    """Copy a version's encoder to a local directory.

    Raises:
        RunError: the version has no model, its files are damaged, or `target` exists already.
    """
    model = snapshot.manifest("model")
    if target.exists():
        raise RunError(f"{target} exists already; give a directory that does not")
    # The copy has another name until it is complete and verified.
    part = target.with_name(f"{target.name}.{uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        snapshot.store.download(f"{snapshot.folder('model')}/{ENCODER}", model.files, part)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
