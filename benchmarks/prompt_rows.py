"""File of what the cells of `prompt_sets.py` wrote: it is committed, so that another machine goes on from it.

A line holds a row of the LLM cache without its nulls, its cell, and the settings that it was written with.
"""

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.config import Config
from multicsr.rows import WRITTEN, Reason
from multicsr.stages.generate.fingerprint import result_settings
from multicsr.stages.generate.llm_cache import CacheKey, LLMCache
from multicsr.storage.id_span import IdSpan
from multicsr.storage.local import Disk
from multicsr.storage.store import Store

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A cell of the table."""

    llm: str
    prompts: str
    omega: float

    def __str__(self) -> str:
        return f"{self.llm}-{self.prompts}-{self.omega}"

    @classmethod
    def of(cls, row: Row) -> "Cell":
        return cls(row["llm"], row["prompts"], row["omega"])


@dataclass(frozen=True)
class CellCache:
    """LLM cache of the store of a cell."""

    cell: Cell
    config: Config
    store: Store
    cache_key: CacheKey
    portable_key: CacheKey
    """The same for every directory that the model may lie in; a digest of its files is part of both."""

    @classmethod
    def of(cls, cell: Cell, config: Config) -> "CellCache":
        settings: dict[str, Any] = result_settings(config)
        llm = {**settings["writing"]["llm"], "model": cell.llm}
        portable = {**settings, "writing": {**settings["writing"], "llm": llm}}
        return cls(cell, config, Store.of(config), CacheKey.of(settings), CacheKey.of(portable))

    @property
    def settings(self) -> str:
        """The settings as they stand in a row."""
        return f"{self.portable_key.writing}/{self.portable_key.scoring}"

    def has(self, row: Row) -> bool:
        """True if a row was written and scored as it would be now, under any version of the rules.

        A version of the rules is no reason to write again: texts are cleaned and judged when they are read.
        """
        key = _key_in(row)
        return (key.writing, key.scores) == (self.portable_key.writing, self.portable_key.scores)

    def restore(self, rows: Iterable[Row]) -> None:
        """Put rows into the store, unless it has them."""
        by_settings: dict[str, list[Row]] = {}
        for row in rows:
            by_settings.setdefault(row["settings"], []).append(row | {"llm": self.config.llm.model})
        for found in by_settings.values():
            key = CacheKey(self.cache_key.writing, _key_in(found[0]).scoring)
            table = pa.Table.from_pylist(sorted(found, key=lambda row: row["row_id"]), WRITTEN)
            span = IdSpan(table["row_id"][0].as_py(), table["row_id"][-1].as_py())
            done = LLMCache(self.store, key, scored=None).select(span).done(self.store)
            missing = table.filter(pc.invert(pc.is_in(table["row_id"], done)))
            if len(missing):
                self.store.write_named_table(key.file(missing["row_id"], span), missing)


def _key_in(row: Row) -> CacheKey:
    return CacheKey(*row.get("settings", "/").split("/"))


@dataclass(frozen=True)
class ResultsFile:
    """JSON lines, sorted. It is replaced in one step: a kill leaves it as it was before or as it is after."""

    path: Path

    def rows(self) -> list[Row]:
        if not self.path.exists():
            return []
        with gzip.open(self.path, "rt", encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]

    def drop_others(self, cache: CellCache) -> int:
        """Remove the rows of a cell that were written with other settings; return their number."""
        rows = self.rows()
        kept = [row for row in rows if Cell.of(row) != cache.cell or cache.has(row)]
        if len(kept) < len(rows):
            self._write(kept)
        return len(rows) - len(kept)

    def add(self, cache: CellCache, table: pa.Table) -> None:
        """Add results of a cell, in place of those of the same sentences. A failure of the engine is none."""
        rows = {_key(row): row for row in self.rows()}
        named = {"llm": cache.cell.llm, "omega": cache.cell.omega, "settings": cache.settings}
        found = [row | named for row in table.to_pylist() if row["reason"] != Reason.ENGINE_ERROR]
        changed = {_key(row): {name: each for name, each in row.items() if each is not None} for row in found}
        if any(rows.get(key) != row for key, row in changed.items()):
            self._write((rows | changed).values())

    def _write(self, rows: Iterable[Row]) -> None:
        text = "".join(
            json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in sorted(rows, key=_key)
        )
        Disk(self.path.parent).write(self.path.name, gzip.compress(text.encode(), mtime=0))


def _key(row: Row) -> tuple[str, str, float, str]:
    return row["llm"], row["prompts"], row["omega"], row["row_id"]
