"""Copies of the encoders in a store."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from multicsr.config import CardConfig
from multicsr.errors import RunError
from multicsr.storage.versions import Snapshot
from multicsr.tools.encoder_source import EncoderSource


def fetch_encoder(snapshot: Snapshot, target: Path, card: CardConfig | None = None) -> None:
    """Copy a version's encoder to a local directory, with its complete card.

    Args:
        snapshot: the version.
        target: directory to make.
        card: statements for the card; None: it states only what the store knows.

    Raises:
        RunError: the version has no model, its files are damaged, or `target` exists already.
    """
    source = EncoderSource(str(snapshot.store.uri()), snapshot, card or CardConfig())
    with new_directory(target) as part:
        source.copy_to(part)


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Yield a directory to write to, which becomes `target` when the block ends and is deleted if it fails.

    Raises:
        RunError: `target` exists already.
    """
    if target.exists():
        raise RunError(f"{target} exists already; give a directory that does not")
    # The copy has another name until it is complete and verified.
    part = target.with_name(f"{target.name}.{uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        yield part
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
