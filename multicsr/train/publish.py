"""From a finished training to the visible model: all or nothing."""

import shutil
from pathlib import Path

from multicsr.errors import RunError
from multicsr.manifest import Manifest
from multicsr.store import Store
from multicsr.train.log import HISTOGRAM, LOG, MASKED_PAIRS

_OLD = "model.old"


def publish_model(store: Store, out: Path, manifest: Manifest) -> None:
    """Make `out/model` the store's `model/`: complete beside the old one, then a change of names.

    Raises:
        RunError: the disk is full or read-only; the old model stays.
    """
    new, model, old = out / "model", store.local("model"), store.local(_OLD)
    try:
        for name in (LOG, MASKED_PAIRS, HISTOGRAM):
            if (out / name).exists():
                shutil.copyfile(out / name, new / name)
        (new / "manifest.json").write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        if model.exists():
            model.rename(old)
        new.rename(model)
    except OSError as error:
        raise RunError(f"store: cannot write {model}: {error}") from error
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)


def heal(store: Store) -> None:
    """Undo a change of names that a crash cut short."""
    if not store.exists(_OLD):
        return
    if store.exists("model"):
        store.delete(_OLD)
    else:
        store.local(_OLD).rename(store.local("model"))
