"""Audit of a version: its files are recounted, and compared with the manifests and with each other."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.artifacts import ENCODER
from multicsr.errors import DamagedFileError, RunError
from multicsr.execution.shard_report import count_reasons
from multicsr.rows import CURATED, SCORED, SENTENCE, UNDETERMINED, complete, rejects, row_id
from multicsr.stages.generate.llm_cache import FOLDER as LLM_CACHE
from multicsr.storage.manifest import Manifest, add_digests, manifest_name, read_manifest, rows_digest
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.versions import MASK_VECTORS, TOMBSTONES, Log, Snapshot, versions

SCHEMAS = {"sentences": SENTENCE, "scored": SCORED, "curated": CURATED}


def audit(snapshot: Snapshot) -> list[str]:
    """Return every difference between the records of a version and its files; empty if there is none.

    Rows are counted, ids are computed again from their texts, and checksums, digests and reasons are added
    up, with one file in memory at a time. For the other versions in the store only the presence and the size
    of their files are checked.

    Raises:
        RunError: there is no artifact to audit, or a manifest cannot be read.
    """
    store = snapshot.store
    manifests = {artifact: snapshot.manifest(artifact) for artifact in SCHEMAS if artifact in snapshot}
    if not manifests:
        raise RunError(f"nothing to audit in {store.uri()}; run `multicsr run CONFIG` first")
    differences: list[str] = []
    before: Manifest | None = None
    for artifact, manifest in manifests.items():
        differences += [
            f"{artifact}: {difference}" for difference in _audit_artifact(store, artifact, manifest, before)
        ]
        before = manifest
    for artifact in ("model", "evaluation"):
        if artifact in snapshot:
            manifests[artifact] = snapshot.manifest(artifact)
            found = _audit_files(store, manifests[artifact])
            differences += [f"{artifact}: {difference}" for difference in found]
    for artifact, manifest in manifests.items():
        differences += [
            f"{artifact}: {stray}" for stray in _strays(store, snapshot.folder(artifact), manifest)
        ]
    differences += _audit_named(store)
    differences += _audit_other_versions(snapshot)
    if (
        "evaluation" in snapshot
        and snapshot.manifest("evaluation").settings["model"] != snapshot.fingerprints["model"]
    ):
        differences.append("evaluation: measured another model; run `multicsr evaluate`")
    return differences


def remarks(snapshot: Snapshot) -> list[str]:
    """Return notes: states that are unusual but valid."""
    found = [
        f"{name} is missing: an entry of the log was deleted, as is advised for a damaged one; if it was a "
        "version, that is not listed any more"
        for name in Log(snapshot.store).holes()
    ]
    if "model" not in snapshot or "curated" not in snapshot:
        return found
    model, curated = snapshot.manifest("model"), snapshot.manifest("curated")
    if (model.rows_in, model.rows_digest) != (curated.rows_out, curated.rows_digest):
        found.append(
            "the model was trained on other triplets than this version holds; `multicsr train` makes a new "
            "one"
        )
    return found


def _audit_artifact(
    store: Store, artifact: str, manifest: Manifest, before: Manifest | None
) -> Iterator[str]:
    rows = _RowTotals()
    yield from rows.read(store, manifest.files, SCHEMAS[artifact])
    rejected_rows = _RowTotals()
    yield from rejected_rows.read(store, manifest.reject_files, rejects(SCHEMAS[artifact]))
    rejected = sum(manifest.rejected.values())
    if manifest.rows_in != manifest.rows_out + rejected:
        yield f"{manifest.rows_in:,} rows in, {manifest.rows_out:,} out and {rejected:,} rejected"
    if rows.number != manifest.rows_out:
        yield f"holds {rows.number:,} rows, its manifest has {manifest.rows_out:,}"
    if dict(rejected_rows.reasons) != manifest.rejected:
        yield f"rejects are {dict(rejected_rows.reasons)}, its manifest has {manifest.rejected}"
    if rows.digest() != manifest.rows_digest:
        yield "holds other row ids than its manifest lists"
    if before is None:
        return
    if before.rows_out != manifest.rows_in:
        yield f"{manifest.rows_in:,} rows in, but the artifact before it holds {before.rows_out:,}"
    elif add_digests([rows.digest(), rejected_rows.digest()]) != before.rows_digest:
        yield f"was made from other rows than the artifact before it holds; run `multicsr {manifest.stage}`"


def _audit_files(store: Store, manifest: Manifest) -> Iterator[str]:
    """Yield the differences of an artifact that holds no rows: a model or its figures."""
    for entry in manifest.files:
        yield from _audit_bytes(store, entry)


def _strays(store: Store, folder: str, manifest: Manifest) -> Iterator[str]:
    """Yield the files of an artifact's folder that look like files of the artifact and are not."""
    listed = {entry.path for entry in [*manifest.files, *manifest.reject_files]}
    for name in store.names(folder):
        if name not in listed and (name.endswith(".parquet") or name.startswith(f"{folder}/{ENCODER}/")):
            yield f"{name} is not in the manifest, and nothing reads it; delete it"


def _audit_named(store: Store) -> Iterator[str]:
    """Yield the damaged files among those whose names hold their checksums."""
    for folder in (LLM_CACHE, TOMBSTONES, MASK_VECTORS):
        for entry in store.named_entries(folder):
            yield from _audit_bytes(store, entry)


def _audit_other_versions(snapshot: Snapshot) -> Iterator[str]:
    """Yield the missing files of other versions; an artifact without its manifest was deleted by gc."""
    store, seen = snapshot.store, set(snapshot.fingerprints.items())
    for version in versions(store):
        for artifact, key in version.artifacts.items():
            if (artifact, key) in seen or not store.exists(manifest_name(artifact, key)):
                continue
            seen.add((artifact, key))
            try:
                manifest = read_manifest(store, artifact, key)
            except DamagedFileError as error:
                yield f"version {version.number}: {error}"
                continue
            for entry in store.incomplete([*manifest.files, *manifest.reject_files]):
                yield f"version {version.number}: {entry.path} is missing or has another size"


class _RowTotals:
    """Totals of an artifact's files, added up while they are read."""

    def __init__(self) -> None:
        self.number = 0
        self.reasons: Counter[str] = Counter()
        self._digests: list[str] = []
        self._last = ""

    def digest(self) -> str:
        """Return the digest of all row ids that were read."""
        return add_digests(self._digests)

    def read(self, store: Store, entries: Sequence[FileEntry], schema: pa.Schema) -> Iterator[str]:
        """Add up the files, and yield the problems of each."""
        for entry in entries:
            damage = list(_audit_bytes(store, entry))
            yield from damage
            if damage:
                continue
            table = complete(store.read_table(entry), schema)
            if not table.schema.equals(schema):
                yield f"{entry.path} has other columns than its artifact"
                continue
            if table.num_rows != entry.rows:
                yield f"{entry.path} holds {table.num_rows:,} rows, its manifest has {entry.rows:,}"
            yield from self._add(entry.path, table)

    def _add(self, path: str, table: pa.Table) -> Iterator[str]:
        self.number += table.num_rows
        identified = table.filter(pc.is_valid(table["row_id"]))
        self._digests.append(rows_digest(identified["row_id"]))
        columns = (identified[name].to_pylist() for name in ("row_id", "text", "language"))
        wrong = sum(
            # A detected language is no part of the id.
            id_ not in (row_id(text, language), row_id(text, UNDETERMINED))
            for id_, text, language in zip(*columns, strict=True)
        )
        if wrong:
            yield f"{path}: {wrong:,} row ids are not the hash of text and language"
        if "reason" in table.column_names:
            self.reasons.update(count_reasons(table))
        else:
            yield from self._check_order(path, table)

    def _check_order(self, path: str, table: pa.Table) -> Iterator[str]:
        """Yield a problem if ids do not rise strictly through the artifact.

        Ids that rise are unique, which is known without all ids in memory.
        """
        ids = [self._last, *table["row_id"].to_pylist()]
        repeated = sum(one >= other for one, other in pairwise(ids))
        if repeated:
            yield f"{path}: {repeated:,} row ids are repeated or out of order"
        self._last = ids[-1]


def _audit_bytes(store: Store, entry: FileEntry) -> Iterator[str]:
    if not store.exists(entry.path):
        yield f"{entry.path} is missing"
        return
    try:
        store.read_verified(entry)
    except DamagedFileError:
        yield f"{entry.path} has other bytes than when it was written"
