"""Audit of a version: its files are recounted, and compared with the manifests and with each other."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.artifacts import ENCODER, LABELLED_ROWS, LABELLED_TRIPLETS
from multicsr.errors import DamagedFileError, RunError
from multicsr.execution.shard_report import count_reasons
from multicsr.rows import (
    CURATED,
    LABELLED,
    SCORED,
    SENTENCE,
    UNDETERMINED,
    Reason,
    complete,
    labelled_row_id,
    rejects,
    row_id,
)
from multicsr.stages.curate.held_out import is_held_out
from multicsr.stages.evaluate.held_out import held_out_share, rows_trained_on
from multicsr.stages.generate.llm_cache import FOLDER as LLM_CACHE
from multicsr.storage.manifest import (
    Manifest,
    add_digests,
    base_fingerprint,
    iter_tables,
    manifest_name,
    read_manifest,
    rows_digest,
)
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.versions import DEMONSTRATIONS, MASK_VECTORS, TOMBSTONES, Log, Snapshot, versions

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
            found = [*_audit_files(store, manifests[artifact])]
            if artifact == "model":
                found += _audit_model_rows(store, manifests[artifact])
                found += _audit_held_out(store, manifests[artifact], manifests.get("curated"))
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
    if "model" not in snapshot:
        return found
    model = snapshot.manifest("model")
    if (rows := rows_trained_on(model)) not in snapshot:
        return found
    source = snapshot.manifest(rows)
    labelled = [snapshot.store.read_table(entry, ["row_id"]) for entry in _labelled_files(model)]
    digests = [source.rows_digest, *(rows_digest(table["row_id"]) for table in labelled)]
    rejects_read = sum(entry.rows for entry in model.reject_files)
    rows_in = source.rows_out + sum(table.num_rows for table in labelled) + rejects_read
    if (model.rows_in, model.rows_digest) != (rows_in, add_digests(digests)):
        trained_on = "triplets" if rows == "curated" else rows
        found.append(
            f"the model was trained on other {trained_on} than this version holds; `multicsr train` makes a "
            "new one"
        )
    return found


def _audit_artifact(
    store: Store, artifact: str, manifest: Manifest, before: Manifest | None
) -> Iterator[str]:
    rows = _RowTotals(_sentence_ids)
    yield from rows.read(store, manifest.files, SCHEMAS[artifact])
    rejected_rows = _RowTotals(_sentence_ids)
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
    """Yield the damaged files of an artifact that is no artifact of rows: a model or its figures."""
    for entry in [*manifest.files, *manifest.reject_files]:
        yield from _audit_bytes(store, entry)


def _labelled_files(model: Manifest) -> list[FileEntry]:
    """Return the files of labelled triplets of a model; none if it was trained on curated rows alone."""
    folder = f"model/{model.fingerprint}/{LABELLED_TRIPLETS}/"
    return [entry for entry in model.files if entry.path.startswith(folder)]


def _audit_model_rows(store: Store, model: Manifest) -> Iterator[str]:
    """Yield the differences between a model's labelled triplets and its manifest."""
    rejected = sum(model.rejected.values())
    if model.rows_in != model.rows_out + rejected:
        yield f"{model.rows_in:,} rows in, {model.rows_out:,} out and {rejected:,} rejected"
    rows, rejected_rows = _RowTotals(_labelled_ids), _RowTotals(_labelled_ids)
    yield from rows.read(store, _labelled_files(model), LABELLED)
    yield from rejected_rows.read(store, model.reject_files, rejects(LABELLED))
    if rows.number != (held := model.counters.get(LABELLED_ROWS, 0)):
        yield f"holds {rows.number:,} labelled triplets, its manifest has {held:,.0f}"
    # Rows that repeat a sentence are among the rejects only if they are labelled: no file holds the others,
    # nor those that are kept from the training.
    unseen = Counter(model.rejected) - rejected_rows.reasons
    unwritten = {Reason.SAME_HYPOTHESES, Reason.HELD_OUT, Reason.LEAKED}
    if rejected_rows.reasons - Counter(model.rejected) or set(unseen) - unwritten:
        yield f"rejects are {dict(rejected_rows.reasons)}, its manifest has {model.rejected}"


def _audit_held_out(store: Store, model: Manifest, curated: Manifest | None) -> Iterator[str]:
    """Yield a difference if a training on these triplets held out another number of them than it should."""
    if (
        curated is None
        or model.settings.get("input") != f"{base_fingerprint(curated.fingerprint)}:{curated.rows_digest}"
    ):
        return
    share = held_out_share(model)
    tables = iter_tables(store, curated, ["row_id"])
    held_out = sum(int(is_held_out(table["row_id"].to_pylist(), share).sum()) for table in tables)
    if held_out != (recorded := model.rejected.get(Reason.HELD_OUT, 0)):
        yield f"{held_out:,} triplets are held out at {share:g}, its manifest has {recorded:,}"


def _strays(store: Store, folder: str, manifest: Manifest) -> Iterator[str]:
    """Yield the files of an artifact's folder that look like files of the artifact and are not."""
    listed = {entry.path for entry in [*manifest.files, *manifest.reject_files]}
    for name in store.names(folder):
        if name not in listed and (name.endswith(".parquet") or name.startswith(f"{folder}/{ENCODER}/")):
            yield f"{name} is not in the manifest, and nothing reads it; delete it"


def _audit_named(store: Store) -> Iterator[str]:
    """Yield the damaged files among those whose names hold their checksums."""
    for folder in (LLM_CACHE, TOMBSTONES, MASK_VECTORS, DEMONSTRATIONS):
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

    def __init__(self, own_ids: Callable[[pa.Table], list[bool]]) -> None:
        """Start with no files.

        Args:
            own_ids: returns whether the id of each row is that of its texts.
        """
        self._own_ids = own_ids
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
        wrong = self._own_ids(identified).count(False)
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


def _sentence_ids(table: pa.Table) -> list[bool]:
    """Return whether the id of each row is that of its sentence."""
    columns = (table[name].to_pylist() for name in ("row_id", "text", "language"))
    return [
        # A detected language is no part of the id.
        id_ in (row_id(text, language), row_id(text, UNDETERMINED))
        for id_, text, language in zip(*columns, strict=True)
    ]


def _labelled_ids(table: pa.Table) -> list[bool]:
    """Return whether the id of each labelled triplet is that of its sentences."""
    columns = (table[name].to_pylist() for name in ("row_id", "text", "entailment", "contradiction"))
    return [id_ == labelled_row_id(*sentences) for id_, *sentences in zip(*columns, strict=True)]


def _audit_bytes(store: Store, entry: FileEntry) -> Iterator[str]:
    if not store.exists(entry.path):
        yield f"{entry.path} is missing"
        return
    try:
        store.read_verified(entry)
    except DamagedFileError:
        yield f"{entry.path} has other bytes than when it was written"
