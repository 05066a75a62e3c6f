"""The life of one row: where it came from, what was asked and written, how it was scored, where it ended."""

import string
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multicsr.config import CurateConfig
from multicsr.errors import ConfigError, RunError
from multicsr.generate.stage import prompts_of
from multicsr.manifest import Manifest, read_manifest
from multicsr.prompts import PromptSet
from multicsr.rows import Reason
from multicsr.store import FileEntry, Span, Store
from multicsr.versions import TOMBSTONES, Rooms, Version, versions

if TYPE_CHECKING:
    from rich.table import Table

_ROOMS = ("sentences", "scored", "curated")
_COPIES = (Reason.DUPLICATE, Reason.NEAR_DUPLICATE)
_SHOWN = 5
Row = dict[str, Any]  # a row of a schema of `multicsr.rows`, which says what is in it


@dataclass(frozen=True)
class Life:
    """What is known of one row, in the order in which it happened."""

    row_id: str
    facts: list[tuple[str, str]]
    """(what, its value)."""

    def __rich__(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.row_id), show_header=False, box=None, title_justify="left")
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for what, value in self.facts:
            table.add_row(what, Text(value))
        return table


def explain(rooms: Rooms, row_id: str) -> Life:
    """Tell the life of the row whose id begins with `row_id`.

    Raises:
        ConfigError: that is no beginning of an id.
        RunError: no such row, or several.
    """
    prefix = row_id.lower()
    if not prefix or len(prefix) > 32 or not set(prefix) <= set(string.hexdigits):
        raise ConfigError(f"{row_id!r} is no row id: give up to 32 hexadecimal digits")
    store = rooms.store
    manifests = {room: rooms.manifest(room) for room in _ROOMS if room in rooms}
    kept = {room: list(_find(store, manifest.files, prefix)) for room, manifest in manifests.items()}
    refused = {
        room: list(_find(store, manifest.reject_files, prefix)) for room, manifest in manifests.items()
    }
    published = versions(store)
    gone = [] if any(kept.values()) else list(_gone(store, published, prefix))
    found = sorted({row["row_id"] for rows in (*kept.values(), *refused.values(), gone) for row in rows})
    if not found:
        raise RunError(f"no row whose id begins with {prefix} in {store.uri()}")
    if len(found) > 1:
        shown = ", ".join(found[:_SHOWN])
        raise RunError(
            f"{len(found):,} row ids begin with {prefix}: {shown}{', ...' * (len(found) > _SHOWN)}"
        )
    facts = _facts(manifests, kept, refused) if any((*kept.values(), *refused.values())) else _last(gone[-1])
    return Life(found[0], [*facts, ("versions", _versions_with(store, published, found[0]))])


def _find(store: Store, entries: Iterable[FileEntry], prefix: str) -> Iterator[Row]:
    span = _beginning_with(prefix)
    for entry in entries:
        if entry.ids and entry.ids.meets(span):
            # Of the file, Parquet's statistics skip what is outside.
            yield from store.read_table(entry.path, filters=span.rows).to_pylist()


def _beginning_with(prefix: str) -> Span:
    return Span(prefix, prefix + "g")  # "g" is above every hexadecimal digit


def _gone(store: Store, published: Sequence[Version], prefix: str) -> Iterator[Row]:
    """Rows that a refresh did not find in their source any more, the latest last."""
    number = {version.rooms.get("sentences"): version.number for version in reversed(published)}
    names = store.names(TOMBSTONES)
    for name in sorted(names, key=lambda name: number.get(name.split("/")[1], 0)):
        for row in store.read_table(name, filters=_beginning_with(prefix).rows).to_pylist():
            yield {**row, "version": number.get(name.split("/")[1])}


def _last(row: Row) -> Iterator[tuple[str, str]]:
    yield "sentence", row["text"]
    yield "source", f"{row['source']}:{row['position']} ({row['language']})"
    since = f"version {row['version']}" if row["version"] else "a night that was not published"
    yield "gone", f"it is not in its source any more, since {since}"


def _versions_with(store: Store, published: Sequence[Version], row_id: str) -> str:
    """Numbers of the versions whose sentences it is among."""
    known: dict[str, bool] = {}
    for version in published:
        key = version.rooms.get("sentences")
        if key is not None and key not in known:
            with suppress(RunError):  # deleted by gc
                files = read_manifest(store, "sentences", key).files
                known[key] = any(True for _ in _find(store, files, row_id))
    numbers = [str(each.number) for each in published if known.get(each.rooms.get("sentences", ""))]
    return ", ".join(numbers) or "none that is still there"


def _facts(
    manifests: dict[str, Manifest], kept: dict[str, list[Row]], refused: dict[str, list[Row]]
) -> Iterator[tuple[str, str]]:
    copies = [row for row in refused.get("sentences", []) if row["reason"] in _COPIES]
    refusals = [(room, row) for room, rows in refused.items() for row in rows if row not in copies]
    last = [(room, rows[0]) for room, rows in kept.items() if rows]
    room, row = (refusals or last or [("sentences", copies[0])])[-1]
    yield "sentence", row["text"]
    yield "source", f"{row['source']}:{row['position']} ({row['language']})"
    for copy in copies[:_SHOWN]:
        yield copy["reason"], f"{copy['source']}:{copy['position']} was dropped: {copy['detail']}"
    if row.get("llm"):
        yield from _writing(row, prompts_of(manifests["scored"], row["prompts"]))
        yield from _scoring(row)
    if refusals:
        stage = manifests[room].stage
        detail = f" ({row['detail']})" if row["detail"] else ""
        yield "rejected", f"by {stage}: {row['reason']}{detail}{_rule(manifests[room])}"
    elif last:
        yield "kept", f"in {room}{_rule(manifests[room])}"


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
            f"{row[f'{side}_{method}']:.2f} {method}"
            for method in ("expected", "stated")
            if row[f"{side}_{method}"] is not None
        ]
        if row[f"{side}_reply"] is not None:
            scores.append(f"reply {row[f'{side}_reply']!r}")
        if scores:
            yield f"score {letter}", ", ".join(scores)
    if row.get("swapped"):
        yield "swapped", "the contradiction scored higher than the entailment: exchanged above"


def _rule(manifest: Manifest) -> str:
    """The thresholds, when it was curation that decided."""
    if manifest.stage != "curate":
        return ""
    rule = CurateConfig.model_validate(manifest.settings["curate"])
    limits = f"a >= {rule.alpha:g}, b <= {rule.beta:g}"
    gap = f"a >= b + {rule.gamma:g}" if rule.rule == "paper" else "a != b, lower score <= 4"
    return f"; rule on {rule.score} scores: {limits}, {gap}"
