"""The protocol by which a stage makes an artifact: reuse what exists, else make it and write its manifest."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import JsonValue

from multicsr.errors import DamagedFileError
from multicsr.observability.progress import Progress
from multicsr.storage.manifest import (
    Contents,
    Manifest,
    code_version,
    fingerprint,
    manifest_name,
    now,
    read_manifest,
    write_manifest,
)
from multicsr.storage.store import Store

_log = logging.getLogger(__name__)


def outcome(manifest: Manifest) -> str:
    """Return the result of a stage as one line of text."""
    return f"{manifest.rows_out:,} kept, {sum(manifest.rejected.values()):,} rejected"


@dataclass(frozen=True)
class Artifact:
    """An artifact that a stage is to make: its place in the store and all that decides its content."""

    store: Store
    stage: str
    """Name of the stage in progress, messages and manifests."""
    kind: str
    """Name of the folder of the store for artifacts of this kind."""
    run: str
    """`name` in the configuration."""
    settings: dict[str, JsonValue]
    """Everything that decides the content, as `unused` returns it, so that gc has not deleted the name."""
    unit: str | None = "rows"
    """Unit of `rows_in` in the progress of a reused artifact; None: the number is not shown."""
    summarise: Callable[[Manifest], str] | None = outcome
    """Function that returns the result in one line for the progress; None: the stage reports it by itself."""
    notes: tuple[str, ...] = ()
    """Remarks for the manifest, which do not decide the content."""
    started_s: float = field(default_factory=time.monotonic, compare=False)
    """Time of `time.monotonic` when the stage began."""

    @property
    def fingerprint(self) -> str:
        """Return the hash of the settings, which is the name of the artifact among those of its kind."""
        return fingerprint(self.settings)

    @property
    def folder(self) -> str:
        """Return the folder of the artifact in the store."""
        return f"{self.kind}/{self.fingerprint}"


def materialise(artifact: Artifact, progress: Progress, make: Callable[[], Contents]) -> Manifest:
    """Return the manifest of an artifact; make the artifact unless it exists already.

    Args:
        artifact: the artifact.
        progress: receives the result; `make` must start the stage.
        make: writes the files of the artifact into its folder, and returns what lies there.

    Raises:
        RunError: the job has lost its lease.
    """
    return reuse(artifact, progress) or complete(artifact, make(), progress)


def reuse(artifact: Artifact, progress: Progress) -> Manifest | None:
    """Return the manifest of an artifact if it is complete already, and report it; else None."""
    manifest = _existing(artifact)
    if manifest is None:
        return None
    if artifact.unit is None:
        progress.start(artifact.stage, None)
    else:
        progress.start(artifact.stage, manifest.rows_in, artifact.unit)
        progress.skip(manifest.rows_in)
    progress.finish(f"{artifact.summarise(manifest)}; reused" if artifact.summarise else "reused")
    return manifest


def complete(artifact: Artifact, contents: Contents, progress: Progress) -> Manifest:
    """Write the manifest, which makes the artifact complete, and report the result.

    All files in `contents` must exist before.

    Raises:
        RunError: the job has lost its lease.
    """
    manifest = Manifest(
        stage=artifact.stage,
        run=artifact.run,
        fingerprint=artifact.fingerprint,
        code_version=code_version(),
        settings=artifact.settings,
        notes=list(artifact.notes),
        created=now(),
        seconds=round(time.monotonic() - artifact.started_s, 3),
        **dict(contents),
    )
    write_manifest(artifact.store, artifact.kind, manifest)
    if artifact.summarise:
        progress.finish(artifact.summarise(manifest))
    return manifest


def _existing(artifact: Artifact) -> Manifest | None:
    """Return the manifest if it and all files of the artifact exist and are complete, else None.

    Only the sizes of the files are checked here; their bytes are verified when they are read.
    """
    store, name = artifact.store, manifest_name(artifact.kind, artifact.fingerprint)
    if not store.exists(name):
        return None
    try:
        manifest = read_manifest(store, artifact.kind, artifact.fingerprint)
    except DamagedFileError:
        _log.warning("%s is damaged; it is made again", store.uri(name))
        return None
    incomplete = store.incomplete([*manifest.files, *manifest.reject_files])
    if incomplete:
        _log.warning("%s is missing or damaged; it is made again", store.uri(incomplete[0].path))
        return None
    return manifest
