"""Versions made by hand, for tests of what reads them."""

from multicsr.storage.manifest import Manifest, now, write_manifest
from multicsr.storage.store import Store
from multicsr.storage.versions import Log, Snapshot, Version, current, latest


def manifest(stage: str, **facts: object) -> Manifest:
    """A manifest of nothing, but for the fields that are given."""
    blank = {"run": "test", "fingerprint": "f", "code_version": "test", "created": now(), "seconds": 0}
    blank |= {"rows_in": 0, "rows_out": 0, "rejected": {}, "rows_digest": "", "files": [], "reject_files": []}
    return Manifest.model_validate({**blank, "settings": {}, "counters": {}, "stage": stage, **facts})


def publish(store: Store, artifact: str, manifest: Manifest) -> Snapshot:
    """Publish a version of the store with this artifact."""
    write_manifest(store, artifact, manifest)
    before = latest(store)
    version = Version(
        number=before.number + 1 if before else 1,
        run=manifest.run,
        command="test",
        artifacts={**(before.artifacts if before else {}), artifact: manifest.fingerprint},
    )
    log = Log(store)
    assert log.append(log.last() + 1, version)
    return current(store)
