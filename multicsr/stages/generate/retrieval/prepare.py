"""Labelled premises with their vectors under P in files of the store, where the actors of the LLM read them.

`demonstrations/<key>/<block>-<checksum>.parquet`; the key is a hash of the texts and of P. A file is put in
one step and never changed, so that a run that is started again computes only the blocks that are missing.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import DamagedFileError
from multicsr.execution.pool import Pool, map_items
from multicsr.observability.progress import Progress
from multicsr.stages.generate.retrieval.encoder import load_encoder, retrieval_device, retriever_settings
from multicsr.stages.generate.retrieval.labelled import LabelledPremises
from multicsr.storage.manifest import fingerprint
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.versions import DEMONSTRATIONS

_log = logging.getLogger(__name__)
_ROWS_PER_FILE = 4096
"""Number of labelled premises that are embedded and written together."""
_FORMAT = 1
"""Version of the files; raise it with every change of their columns or of their vectors' form."""
_BLOCK = re.compile(r"(\d+)-[0-9a-f]+\.parquet")


@dataclass(frozen=True)
class LabelledBlock:
    """Labelled premises that are embedded together."""

    number: int
    rows: pa.Table

    @property
    def key(self) -> str:
        """Return the name of the shard in messages."""
        return f"labelled premises, block {self.number}"


def prepare_demonstrations(
    config: Config, store: Store, labelled: LabelledPremises | None, pool: Pool, progress: Progress
) -> list[FileEntry]:
    """Embed the labelled premises that the store has no vectors of; return the files of all of them.

    Args:
        config: the settings of the run.
        store: the store of the run.
        labelled: the labelled premises; None: prompts have no demonstrations.
        pool: actors that P is loaded in, those of the LLM.
        progress: receives a line if P has work.

    Raises:
        ConfigError: P cannot be loaded.
        RunError: P gives vectors that are no vectors, or a worker died repeatedly.
    """
    settings = config.generate.demonstrations
    if settings is None or labelled is None:
        return []
    chosen = settings.retriever(config.train)
    folder = _folder(labelled.digest(), retriever_settings(chosen), retrieval_device(config))
    known = _readable(store, folder)
    blocks = [
        LabelledBlock(number, labelled.rows.slice(start, _ROWS_PER_FILE))
        for number, start in enumerate(range(0, len(labelled.rows), _ROWS_PER_FILE))
    ]
    missing = [block for block in blocks if block.number not in known]
    if missing:
        num_rows = sum(len(block.rows) for block in missing)
        progress.announce(f"{num_rows:,} labelled premises for {chosen.model}, to find demonstrations")
    pool = replace(pool, shards_at_once=1)  # a tokenizer is not thread-safe
    for number, entry in map_items("generate", lambda: _embedder(config, store, folder), missing, pool):
        known[number] = entry
    return [known[block.number] for block in blocks]


def folders_of(scored: Mapping[str, JsonValue]) -> set[str]:
    """Return the folders of vectors that rows may have been written with, one for each kind of device.

    Args:
        scored: settings of scored rows, from their manifest.
    """
    writing = scored.get("writing")
    shown = writing.get("demonstrations") if isinstance(writing, dict) else None
    if not isinstance(shown, dict):
        return set()
    return {_folder(shown["triplets"], shown["encoder"], device) for device in ("cpu", "cuda")}


def _folder(rows: JsonValue, encoder: JsonValue, device: str) -> str:
    """Return the folder of the vectors of labelled premises.

    Args:
        rows: `LabelledPremises.digest()`.
        encoder: `retriever_settings`.
        device: device of P, `cpu` or `cuda`.
    """
    causes: dict[str, JsonValue] = {
        "rows": rows,
        "encoder": encoder,
        "device": device,
        "rows_per_file": _ROWS_PER_FILE,
        "format": _FORMAT,
    }
    return f"{DEMONSTRATIONS}/{fingerprint(causes)}"


def _readable(store: Store, folder: str) -> dict[int, FileEntry]:
    """Return the files of a folder by their blocks. A damaged one is left out, so that it is made again."""
    known: dict[int, FileEntry] = {}
    for entry in store.named_entries(folder):
        if match := _BLOCK.fullmatch(PurePosixPath(entry.path).name):
            try:
                store.read_table(entry)
            except DamagedFileError as error:
                _log.warning("%s; its vectors are computed again", str(error).partition(";")[0])
            else:
                known.setdefault(int(match[1]), entry)
    return known


def _embedder(config: Config, store: Store, folder: str) -> Callable[[LabelledBlock], tuple[int, FileEntry]]:
    """Load P; return the function that embeds a block and writes it to the store."""
    encoder = load_encoder(config)

    def embed(block: LabelledBlock) -> tuple[int, FileEntry]:
        vector_RD = encoder.embed(block.rows["text"].to_pylist())
        data = pa.py_buffer(np.ascontiguousarray(vector_RD).tobytes())
        kind = pa.binary(2 * encoder.width)
        vectors = pa.Array.from_buffers(kind, len(block.rows), [None, data])
        table = block.rows.append_column("vector", vectors)
        return block.number, store.write_named_table(f"{folder}/{block.number:05}", table)

    return embed
