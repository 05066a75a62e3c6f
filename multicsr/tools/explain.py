"""History of one row: its source, prompts and hypotheses, its scores, and where it was kept or rejected."""

import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multicsr.errors import ConfigError, DamagedFileError, MissingFileError, RunError
from multicsr.prompts import PromptSet
from multicsr.rows import Reason
from multicsr.stages.curate.curation import Curation
from multicsr.stages.generate.fingerprint import max_demonstrations, prompts_of
from multicsr.stages.score.scorer import COLUMNS
from multicsr.storage.id_span import IdSpan
from multicsr.storage.manifest import Manifest, read_manifest
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.versions import TOMBSTONES, Snapshot, Version, published_versions

if TYPE_CHECKING:
    from rich.table import Table

_ROW_ARTIFACTS = ("sentences", "scored", "curated")
_COPIES = (Reason.DUPLICATE, Reason.NEAR_DUPLICATE)
_SHOWN = 5
Row = dict[str, Any]  # a row; its columns are those of a schema of `multicsr.rows`


@dataclass(frozen=True)
class RowHistory:
    """Facts known of one row, in the order in which they happened."""

    row_id: str
    facts: list[tuple[str, str]]
    """Pairs (what, its value)."""

    def __rich__(self) -> "Table":
        from rich.table import Table

        table = Table(title=self.row_id, show_header=False, box=None, title_justify="left")
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for what, value in self.facts:
            table.add_row(what, value)
        return table


def explain(snapshot: Snapshot, row_id: str) -> RowHistory:
    """Return the history of the row whose id begins with `row_id`.

    Raises:
        ConfigError: `row_id` cannot be the beginning of an id.
        RunError: there is no such row, or there are several.
    """
    prefix = row_id.lower()
    if not prefix or len(prefix) > 32 or not set(prefix) <= set(string.hexdigits):
        raise ConfigError(f"{row_id!r} is no row id: give up to 32 hexadecimal digits")
    store = snapshot.store
    manifests = {artifact: snapshot.manifest(artifact) for artifact in _ROW_ARTIFACTS if artifact in snapshot}
    kept = {artifact: list(_find(store, manifest.files, prefix)) for artifact, manifest in manifests.items()}
    rejected = {
        artifact: list(_find(store, manifest.reject_files, prefix))
        for artifact, manifest in manifests.items()
    }
    published = published_versions(store)
    gone = [] if any(kept.values()) else list(_gone(store, published, prefix))
    found = sorted({row["row_id"] for rows in (*kept.values(), *rejected.values(), gone) for row in rows})
    if not found:
        raise RunError(f"no row whose id begins with {prefix} in {store.uri()}")
    if len(found) > 1:
        shown = ", ".join([*found[:_SHOWN], "..."] if len(found) > _SHOWN else found)
        raise RunError(f"{len(found):,} row ids begin with {prefix}: {shown}")
    facts = (
        _facts(manifests, kept, rejected) if any((*kept.values(), *rejected.values())) else _last(gone[-1])
    )
    return RowHistory(found[0], [*facts, ("versions", _versions_with(store, published, found[0]))])


def _find(store: Store, entries: Iterable[FileEntry], prefix: str) -> Iterator[Row]:
    span = _beginning_with(prefix)
    for entry in entries:
        if entry.ids and entry.ids.meets(span):
            # Parquet's statistics skip the parts of the file that lie outside the span.
            yield from store.read_table(entry, filters=span.rows).to_pylist()


def _beginning_with(prefix: str) -> IdSpan:
    return IdSpan(prefix, prefix + "g")  # "g" is above every hexadecimal digit


def _gone(store: Store, published: Sequence[Version], prefix: str) -> Iterator[Row]:
    """Yield the rows that a refresh did not find in their source any more, the latest last."""
    number = {version.artifacts.get("sentences"): version.number for version in reversed(published)}
    entries = [(number.get(entry.path.split("/")[1]), entry) for entry in store.named_entries(TOMBSTONES)]
    for version, entry in sorted(entries, key=lambda found: found[0] or 0):
        for row in store.read_table(entry, filters=_beginning_with(prefix).rows).to_pylist():
            yield {**row, "version": version}


def _last(row: Row) -> Iterator[tuple[str, str]]:
    yield "sentence", row["text"]
    yield "source", f"{row['source']}:{row['position']} ({row['language']})"
    since = f"version {row['version']}" if row["version"] else "a refresh run that was not published"
    yield "gone", f"it is not in its source any more, since {since}"


def _versions_with(store: Store, published: Sequence[Version], row_id: str) -> str:
    """Return the numbers of the versions whose sentences include the row."""
    known: dict[str, bool] = {}
    damaged: list[str] = []
    for version in published:
        key = version.artifacts.get("sentences")
        if key is None or key in known:
            continue
        try:
            files = read_manifest(store, "sentences", key).files
            known[key] = any(True for _ in _find(store, files, row_id))
        except MissingFileError:  # gc deleted it
            known[key] = False
        except DamagedFileError:
            known[key] = False
            damaged.append(str(version.number))
    numbers = [str(each.number) for each in published if known.get(each.artifacts.get("sentences", ""))]
    remark = f"; damaged, see `multicsr audit`: {', '.join(damaged)}" if damaged else ""
    return (", ".join(numbers) or "none that is still there") + remark


def _facts(
    manifests: dict[str, Manifest], kept: dict[str, list[Row]], rejected: dict[str, list[Row]]
) -> Iterator[tuple[str, str]]:
    copies = [row for row in rejected.get("sentences", []) if row["reason"] in _COPIES]
    rejections = [(artifact, row) for artifact, rows in rejected.items() for row in rows if row not in copies]
    last = [(artifact, rows[0]) for artifact, rows in kept.items() if rows]
    artifact, row = (rejections or last or [("sentences", copies[0])])[-1]
    yield "sentence", row["text"]
    yield "source", f"{row['source']}:{row['position']} ({row['language']})"
    for copy in copies[:_SHOWN]:
        yield copy["reason"], f"{copy['source']}:{copy['position']} was dropped: {copy['detail']}"
    if row.get("llm"):
        yield from _writing(row, prompts_of(manifests["scored"], row["prompts"]))
        if most := max_demonstrations(manifests["scored"]):
            yield (
                "demonstrations",
                f"at most {most}, before the sentence in both prompts; they are not stored",
            )
        yield from _scoring(row)
    if rejections:
        stage = manifests[artifact].stage
        detail = f" ({row['detail']})" if row["detail"] else ""
        yield "rejected", f"by {stage}: {row['reason']}{detail}{_rule(manifests[artifact])}"
    elif last:
        yield "kept", f"in {artifact}{_rule(manifests[artifact])}"


def _writing(row: Row, prompts: PromptSet | None) -> Iterator[tuple[str, str]]:
    yield "written by", f"{row['llm']}, omega {row['omega']:g}, prompt set {row['prompts']}"
    for side in ("entailment", "contradiction"):
        number, text = row[f"{side}_prompt"], row[side]
        if number is not None:
            asked = (
                prompts.generation(row["text"], getattr(prompts, side)[number]) if prompts else "not at hand"
            )
            yield f"{side} prompt {number}", asked
        if text is not None:
            yield side, text


def _scoring(row: Row) -> Iterator[tuple[str, str]]:
    for side, letter in (("entailment", "a"), ("contradiction", "b")):
        scores = [
            f"{row[f'{side}_{column}']:.2f} {column}"
            for column in dict.fromkeys(COLUMNS.values())
            if row.get(f"{side}_{column}") is not None
        ]
        if row[f"{side}_reply"] is not None:
            scores.append(f"reply {row[f'{side}_reply']!r}")
        if scores:
            yield f"score {letter}", ", ".join(scores)
    if row.get("swapped"):
        yield "swapped", "the contradiction scored higher than the entailment: exchanged above"


def _rule(manifest: Manifest) -> str:
    """Return the thresholds if the artifact is curation's, else an empty string."""
    rule = Curation.stored(manifest)
    if rule is None:
        return ""
    limits = f"a >= {rule.alpha:g}, b <= {rule.beta:g}"
    gap = (
        f"a >= b {'-' if rule.gamma < 0 else '+'} {abs(rule.gamma):g}"
        if rule.rule == "paper"
        else "a != b, lower score <= 4"
    )
    calibrated = "calibrated " if rule.calibration else ""
    return f"; rule on {calibrated}{rule.score} scores: {limits}, {gap}"
