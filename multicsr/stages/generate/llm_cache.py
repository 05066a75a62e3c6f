"""LLM cache: results of the LLM, found by row id and by the settings that decided them.

`llm_cache/<writing>/<scoring>/<shard>/<least id>-<greatest id>-<digest of ids>-<checksum>.parquet` holds
rows.WRITTEN, sorted by id; the checksum is that of the file, because no manifest names it. `writing` is a
hash of the settings that decide hypotheses, `scoring` of those that decide the scores of given hypotheses,
with the version of the rules by which hypotheses are cleaned and judged, or the word `unscored` if the engine
failed between the two. `shard` is the least and the greatest id of the
shard in which the rows were written. A shard may have several files, so that the answers of a paid endpoint
are kept as they arrive. A file is put in one step and never changed, and the put commits its rows: after a
killed job, a grown corpus or a changed prompt the existing results are found in the same way. The names of
the files are enough to select those that a range of ids needs; the ids themselves are compared in workers, a
range at a time, so that no process holds all ids of the corpus.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from multicsr.rows import SCORE_COLUMNS, WRITTEN, Reason
from multicsr.storage.collected import is_collected, unused_name
from multicsr.storage.id_span import IdSpan
from multicsr.storage.manifest import Manifest, base_fingerprint, fingerprint, rows_digest
from multicsr.storage.row_ids import read_ids
from multicsr.storage.store import FileEntry, Store

FOLDER = "llm_cache"
"""Folder of the LLM cache in the store."""
LLM_SCHEMA = "2"
"""Schema number of the LLM's results and their columns. It is independent of the store's schema number, so
that no other change makes the LLM write again."""
_RULES_MARK = "r"
"""Letter before the version of the rules for hypotheses in the name of a folder; no hash has it."""
ADDED = "hypotheses of packages"
"""Key of the rules of other packages among the rules of scoring."""
_UNSCORED = "unscored"
"""Name used in place of a scoring hash for hypotheses without scores."""
_NAME = re.compile(r"/([0-9a-f]{32})-([0-9a-f]{32})-[0-9a-f]{32}-[0-9a-f]{32}\.parquet$")


@dataclass(frozen=True)
class Source:
    """File with results of the LLM."""

    entry: FileEntry
    span: IdSpan
    is_scored: bool
    """True if its scores are the wanted ones; False if only its hypotheses are."""
    has_scores: bool = False
    """True if its scores are those of the wanted settings, under any version of the rules for hypotheses."""
    has_failures: bool = False
    """True if its rows may include engine failures, which are not results."""

    def rows(self, span: IdSpan) -> pc.Expression | None:
        """Return the filter that selects the results in a span; None if all rows are."""
        if not self.has_failures:
            return None if span.holds(self.span) else span.rows
        reason = pc.field("reason")
        return span.rows & (reason.is_null() | (reason != Reason.ENGINE_ERROR.value))


@dataclass(frozen=True)
class CachedRange:
    """Sources of a span of ids. It can be pickled, so that a worker reads the results itself."""

    span: IdSpan
    sources: tuple[Source, ...]

    def within(self, span: IdSpan) -> "CachedRange":
        """Return the sources of a part of the span."""
        return CachedRange(span, tuple(source for source in self.sources if source.span.meets(span)))

    def done(self, store: Store) -> pa.ChunkedArray:
        """Return the ids of the rows that are written and scored."""
        scored = [source for source in self.sources if source.is_scored]
        parts = [read_ids(store, [source.entry], source.rows(self.span)) for source in scored]
        return pa.chunked_array(parts, pa.string())

    def rows(self, store: Store) -> pa.Table:
        """Return the WRITTEN rows that are written and scored."""
        return self._read(store, is_scored=True)

    def hypotheses(self, store: Store) -> pa.Table:
        """Return the WRITTEN rows with the wanted hypotheses that are not written and scored as wanted.

        Scores by other settings are removed. Those that are left are valid for the texts beside them; only
        the rules for hypotheses have another version.
        """
        return self._read(store, is_scored=False)

    def _read(self, store: Store, is_scored: bool) -> pa.Table:
        """Return the WRITTEN rows of the sources with or without the wanted scores."""
        chosen = [source for source in self.sources if source.is_scored == is_scored]
        tables = [
            _as_written(
                store.read_table(source.entry, filters=source.rows(self.span)),
                with_scores=source.is_scored or source.has_scores,
            )
            for source in chosen
        ]
        return pa.concat_tables([WRITTEN.empty_table(), *tables])


@dataclass(frozen=True)
class CacheKey:
    """Key of the LLM cache: hashes of the settings that decide its rows."""

    writing: str
    """Hash of the settings that decide hypotheses."""
    scoring: str
    """Hash of the settings that decide the scores of given hypotheses, with the version of the rules for
    hypotheses, or `unscored`."""
    generation: str = field(default="", compare=False)
    """Suffix of the folder's name if gc has deleted earlier folders of the same key."""

    @classmethod
    def of(cls, settings: Mapping[str, JsonValue]) -> "CacheKey":
        """Return the key for the settings of a scored artifact."""
        scoring, version = _without_rules(settings["scoring"])
        keyed = ({"schema": LLM_SCHEMA, "settings": each} for each in (settings["writing"], scoring))
        writing_hash, scoring_hash = map(fingerprint, keyed)
        return cls(writing_hash, f"{scoring_hash}{_RULES_MARK}{version}")

    @classmethod
    def of_folder(cls, name: str) -> "CacheKey":
        """Return the key of the folder `llm_cache/<writing>/<scoring>`."""
        _, writing, scoring = name.split("/")
        return cls(writing, base_fingerprint(scoring))

    def writable(self, store: Store) -> "CacheKey":
        """Return the key with a folder that gc has not deleted."""
        name = f"{self.writing}-{self.scoring}"
        return replace(self, generation=unused_name(store, name).removeprefix(name))

    @property
    def scores(self) -> str:
        """Return the hash of the settings that decide the scores, without the version of the rules."""
        return self.scoring.partition(_RULES_MARK)[0]

    @property
    def unscored(self) -> "CacheKey":
        """Return the key of the hypotheses that have no scores yet."""
        return CacheKey(self.writing, _UNSCORED)

    @property
    def folder(self) -> str:
        """Return the folder of the rows that have this key."""
        return f"{FOLDER}/{self.writing}/{self.scoring}{self.generation}"

    def shard(self, span: IdSpan) -> str:
        """Return the folder of the rows of one shard, given its first and last id."""
        return f"{self.folder}/{span.first}-{span.last}"

    def file(self, row_ids: pa.ChunkedArray, shard: IdSpan) -> str:
        """Return the stem of the file name for these rows, for `Store.write_named_table`."""
        return _file(self.shard(shard), row_ids)


def remove_rows(store: Store, entry: FileEntry, kept: pa.Array) -> None:
    """Delete a file of the LLM cache, after the rows to keep were written to another one.

    Args:
        store: the store.
        entry: the file.
        kept: ids of the rows to keep.
    """
    table = store.read_table(entry)
    if len(rows := table.filter(pc.is_in(table["row_id"], kept))):
        store.write_named_table(_file(entry.path.rpartition("/")[0], rows["row_id"]), rows)
    store.delete(entry.path)


def _file(folder: str, row_ids: pa.ChunkedArray) -> str:
    """Return the stem of the name of a file of a shard's folder."""
    ends = pc.min_max(row_ids)
    return f"{folder}/{ends['min']}-{ends['max']}-{rows_digest(row_ids)}"


def span_of(entry: FileEntry) -> IdSpan | None:
    """Return the span of the ids in a file, by its name; None if it is not a file of the LLM cache."""
    found = _NAME.search(entry.path)
    return IdSpan(found[1], found[2]) if found else None


def key_of_folder(name: str) -> str:
    """Return the key by which gc announces `llm_cache/<writing>/<scoring>`."""
    return name.removeprefix(f"{FOLDER}/").replace("/", "-")


class LLMCache:
    """Results for one key: the files under its name, and the scored artifact of the current version."""

    def __init__(self, store: Store, cache_key: CacheKey, scored: Manifest | None) -> None:
        """List the files that hold results.

        Args:
            store: the store.
            cache_key: the key.
            scored: manifest of the current scored artifact; None if there is none to be read.
        """
        entries = store.named_entries(f"{FOLDER}/{cache_key.writing}")
        untaken = _untaken_folders(store, entries)
        self._sources = [
            Source(
                entry,
                span,
                is_scored=untaken[_folder(entry)] == cache_key,
                has_scores=untaken[_folder(entry)].scores == cache_key.scores,
            )
            for entry in entries
            if _folder(entry) in untaken and (span := span_of(entry))
        ]
        theirs = CacheKey.of(scored.settings) if scored else None
        if scored and theirs and theirs.writing == cache_key.writing:
            kind = (theirs.scoring == cache_key.scoring, theirs.scores == cache_key.scores)
            self._sources += _sources_of(store, scored.files, *kind, has_failures=False)
            self._sources += _sources_of(store, scored.reject_files, *kind, has_failures=True)

    def select(self, span: IdSpan) -> CachedRange:
        """Return the sources of the rows of a span."""
        return CachedRange(span, tuple(source for source in self._sources if source.span.meets(span)))


def _without_rules(scoring: JsonValue) -> tuple[JsonValue, str]:
    """Return the settings of scoring without the rules for hypotheses, and the version of these rules.

    With rules of other packages the version has a hash of their names and versions.
    """
    rules = scoring.get("rules") if isinstance(scoring, dict) else None
    if not isinstance(scoring, dict) or not isinstance(rules, dict) or "hypotheses" not in rules:
        return scoring, "0"
    others = {name: version for name, version in rules.items() if name not in ("hypotheses", ADDED)}
    added = f".{fingerprint({ADDED: rules[ADDED]})}" if ADDED in rules else ""
    return {**scoring, "rules": others}, f"{rules['hypotheses']}{added}"


def _untaken_folders(store: Store, entries: Iterable[FileEntry]) -> dict[str, CacheKey]:
    """Return the folders that gc has not deleted, each with its key."""
    return {
        folder: CacheKey.of_folder(folder)
        for folder in {_folder(entry) for entry in entries}
        if folder.count("/") == 2 and not is_collected(store, key_of_folder(folder))
    }


def _folder(entry: FileEntry) -> str:
    """Return the folder `llm_cache/<writing>/<scoring>` of a file."""
    return "/".join(entry.path.split("/")[:3])


def written_in(store: Store, cache_key: CacheKey, shard: IdSpan) -> pa.Table:
    """Return the WRITTEN rows of a shard that were committed before its worker ended."""
    with_scores = cache_key.scoring != _UNSCORED
    tables = [
        _as_written(store.read_table(entry), with_scores=with_scores)
        for entry in store.named_entries(cache_key.shard(shard))
    ]
    return pa.concat_tables([WRITTEN.empty_table(), *tables])


def _sources_of(
    store: Store, entries: Sequence[FileEntry], is_scored: bool, has_scores: bool, has_failures: bool
) -> Iterable[Source]:
    """Return the files of an artifact as sources, without those that are incomplete in the store."""
    missing = {entry.path for entry in store.incomplete(entries)}
    return [
        Source(entry, entry.ids, is_scored, has_scores, has_failures)
        for entry in entries
        if entry.ids and entry.path not in missing
    ]


def _as_written(table: pa.Table, *, with_scores: bool = True) -> pa.Table:
    """Return rows of a scored artifact, its rejects or the LLM cache in the columns of WRITTEN.

    A column that the file does not have is null. The verdict about a hypothesis on many rows is dropped: it
    is made again for each artifact.
    """
    columns = {
        field.name: table[field.name]
        if field.name in table.column_names and (with_scores or field.name not in SCORE_COLUMNS)
        else pa.nulls(table.num_rows, field.type)
        for field in WRITTEN
    }
    is_repeated = pc.fill_null(pc.equal(columns["reason"], Reason.REPEATED_HYPOTHESIS.value), False)
    for name in ("reason", "detail"):
        columns[name] = pc.if_else(is_repeated, None, columns[name])
    return pa.table(columns, schema=WRITTEN)
