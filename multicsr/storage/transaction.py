"""Transactions on a store: a job replaces artifacts of the current version and publishes them together."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from multicsr.artifacts import ENCODER
from multicsr.config import Config
from multicsr.errors import DamagedFileError, RunError
from multicsr.observability.progress import Progress
from multicsr.storage import refresh_costs
from multicsr.storage.collected import is_collected
from multicsr.storage.lease import Lease, held
from multicsr.storage.manifest import Manifest
from multicsr.storage.promotion import rolled_back
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.versions import Snapshot, Version, find, latest, versions

_log = logging.getLogger(__name__)
_SERVED = ("model", "evaluation")
"""Artifacts that nothing reads before users do. Rows are verified by the next stage that reads them."""


class Transaction:
    """A transaction: the artifacts of the next version. Readers see none of its changes before `publish`."""

    def __init__(self, store: Store, lease: Lease, run: str, command: str) -> None:
        self.store = store
        self._lease, self._run, self._command = lease, run, command
        self._base = latest(store)
        self._artifacts = dict(self._base.artifacts) if self._base else {}

    @property
    def snapshot(self) -> Snapshot:
        """Return a snapshot of the artifacts in the transaction."""
        return Snapshot(self.store, dict(self._artifacts))

    @property
    def number(self) -> int | None:
        """Return the number of the current version; None before the first."""
        return self._base.number if self._base else None

    @property
    def next_number(self) -> int | None:
        """Return the number of the version that is current after `publish`."""
        if not self.is_changed:
            return self.number
        return (self.number or 0) + 1

    @property
    def is_changed(self) -> bool:
        """Return True if `publish` would make a new version."""
        return self._base is None or self._base.artifacts != self._artifacts

    @property
    def replaces(self) -> bool:
        """Return True if an artifact of the current version is missing or different in the transaction."""
        return self._base is not None and any(
            self._artifacts.get(artifact) != fingerprint
            for artifact, fingerprint in self._base.artifacts.items()
        )

    def add(self, artifact: str, manifest: Manifest) -> Manifest:
        """Add a complete artifact; a new model removes the evaluation of the previous one.

        Raises:
            RunError: another job took over the store.
        """
        self.check()
        if artifact == "model" and self._artifacts.get(artifact) != manifest.fingerprint:
            self._artifacts.pop("evaluation", None)  # it measured another model
        self._artifacts[artifact] = manifest.fingerprint
        return manifest

    def keep(self, *artifacts: str) -> None:
        """Undo the changes of some artifacts: take them from the current version again."""
        for artifact in artifacts:
            self._artifacts.pop(artifact, None)
            if self._base is not None and artifact in self._base.artifacts:
                self._artifacts[artifact] = self._base.artifacts[artifact]

    def check(self) -> None:
        """Raise RunError if another job took over the store; to be called before every irreversible step."""
        self._lease.check()

    def publish(self, restores: int | None = None) -> Version | None:
        """Publish the artifacts as the new current version.

        Args:
            restores: number of the version that a rollback restores; None if this is not a rollback.

        Returns:
            The new version; None if nothing differs from the current one.

        Raises:
            RunError: another job took over, or the triplets and the model are those of a version that a user
                rolled back from.
        """
        if not self.is_changed:
            return None
        metrics, tasks = _metrics(self.snapshot)
        version = Version(
            number=self._base.number + 1 if self._base else 1,
            run=self._run,
            command=self._command,
            artifacts=dict(self._artifacts),
            restores=restores,
            metrics=metrics,
            tasks=tasks,
        )
        if restores is None and (rejected := self.rejected(version.artifacts)):
            raise RunError(
                f"{rejection(rejected)}; nothing was published, change the input or a setting, or publish it "
                f"all the same by `multicsr rollback CONFIG --to {rejected.number}`"
            )
        self._lease.publish(version)
        self._base = version
        _link_encoder(self.store)
        return version

    def rejected(self, artifacts: Mapping[str, str]) -> Version | None:
        """Return the version with these triplets and this model that a user rolled back from, else None."""
        if self._base is None or self._base.has_work(artifacts):
            return None
        behind = rolled_back(versions(self.store))
        return next((version for version in behind if version.has_work(artifacts)), None)

    def restore(self, version: Version) -> Version | None:
        """Publish the artifacts of an earlier version again; return None if they are current already."""
        self._artifacts = dict(version.artifacts)
        return self.publish(restores=version.number)


def roll_back(config: Config, number: int | None, progress: Progress) -> Version:
    """Make an earlier version the current one again, under a new number.

    Args:
        number: number of the version to restore; None: the version before the current one.

    Raises:
        RunError: there is no such version, it is the current one, or its files were deleted.
    """
    with open_transaction(config, "rollback", progress) as transaction:
        now = latest(transaction.store)
        if now is None:
            raise RunError(f"nothing was published in {transaction.store.uri()} yet")
        wanted = find(transaction.store, number) if number else _before(now, versions(transaction.store))
        _check_files(Snapshot(transaction.store, wanted.artifacts), wanted.number)
        restored = transaction.restore(wanted)
        if restored is None:
            raise RunError(f"the current version {now.number} is what version {wanted.number} was already")
        return restored


def rejection(version: Version) -> str:
    """Return the part of a message that reports that a version was rolled back from."""
    return f"version {version.number} has the same triplets and model, and was rolled back from"


def _check_files(snapshot: Snapshot, number: int) -> None:
    """Raise RunError if a version cannot be restored: gc deleted it, or its files are missing or damaged."""
    store, place = snapshot.store, snapshot.store.uri()
    for artifact, key in snapshot.fingerprints.items():
        if is_collected(store, key):
            raise RunError(
                f"files of version {number} are gone from {place}: gc has deleted {artifact}/{key}; roll "
                "back to another version"
            )
        manifest = snapshot.manifest(artifact)
        bytes_of = {info.name: info.bytes for info in store.infos(snapshot.folder(artifact))}
        for entry in [*manifest.files, *manifest.reject_files]:
            if entry.path not in bytes_of:
                state = "gone from"
            elif bytes_of[entry.path] != entry.bytes or (artifact in _SERVED and _is_damaged(store, entry)):
                state = "damaged in"
            else:
                continue
            files = f"files of version {number} are {state} {place}: {entry.path}"
            raise RunError(f"{files}; roll back to another version")


def _is_damaged(store: Store, entry: FileEntry) -> bool:
    """Return whether the bytes of a file differ from those that were written."""
    try:
        store.read_verified(entry)
    except DamagedFileError:
        return True
    return False


def _before(now: Version, known: Sequence[Version]) -> Version:
    """Return the last version before the current one with other content that no rollback went back behind.

    Raises:
        RunError: there is none.
    """
    rejected = {version.number for version in rolled_back(known)}
    last = now.restores or now.number
    for version in reversed(known):
        if version.number < last and version.number not in rejected and version.artifacts != now.artifacts:
            return version
    raise RunError(f"no version before the current one, {now.number}, is left to go back to; name one: --to")


def _metrics(snapshot: Snapshot) -> tuple[dict[str, float], dict[str, str]]:
    """Return the finite metrics of the model by task, and the digest of the data of each task."""
    if "evaluation" not in snapshot:
        return {}, {}
    evaluation = snapshot.manifest("evaluation")
    metrics = {name: value for name, value in evaluation.counters.items() if math.isfinite(value)}
    tasks = evaluation.settings.get("tasks")
    return metrics, {name: str(digest) for name, digest in tasks.items()} if isinstance(tasks, dict) else {}


def _check_link(store: Store) -> None:
    """Raise RunError if the path of the link to the encoder holds something other than a symbolic link."""
    link = store.directory / ENCODER if store.directory else None
    if link is not None and link.exists() and not link.is_symlink():
        raise RunError(
            f"store: {link} is not the link to the current encoder, but a file or directory of its own, as "
            "`cp -rL` or `aws s3 sync` make it; delete it, the link is made again"
        )


def _link_encoder(store: Store) -> None:
    """Point the link `encoder` of a local store to the encoder of the current version.

    The link is for the convenience of users; readers do not rely on it.
    """
    root, linked = store.directory, None
    # Repeat until the current version does not change: a job that was suspended before it linked must not
    # leave the link at an older version.
    while root is not None and (now := latest(store)) is not None and now != linked:
        linked = now
        if "model" in now.artifacts:
            _replace_link(root, Path(Snapshot(store, now.artifacts).folder("model"), ENCODER))


def _replace_link(root: Path, encoder: Path) -> None:
    new = root / f"{ENCODER}.{uuid4().hex}"
    try:
        new.symlink_to(encoder)
        new.replace(root / ENCODER)
    except OSError as error:  # the version is published all the same, and `fetch` finds its encoder
        _log.warning("store: cannot make the link %s: %s", root / ENCODER, error)
        with suppress(OSError):
            new.unlink(missing_ok=True)


@contextmanager
def open_transaction(config: Config, command: str, progress: Progress) -> Iterator[Transaction]:
    """Yield a transaction on the store of a configuration, and hold the lease while the block runs.

    Raises:
        RunError: another job holds the lease, or `encoder` in the store is not a link.
    """
    store = Store.of(config)
    with held(store, f"`multicsr {command}` of {config.name}", config.lease_s, progress) as lease:
        _check_link(store)
        refresh_costs.complete(lease.store)
        yield Transaction(lease.store, lease, config.name, command)
