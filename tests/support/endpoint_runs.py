"""Runs at an endpoint that answers every request by a function of its body."""

import hashlib
import json
import math
from pathlib import Path

from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from tests.support.chat_server import said

TOKENS = (100, 10)
"""What each request costs."""


def answer(body, tokens=TOKENS):
    name = hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=4).hexdigest()
    if body.get("logprobs"):
        top = [{"token": "4", "logprob": math.log(0.8)}, {"token": "1", "logprob": math.log(0.2)}]
        content = {"content": [{"token": "4", "top_logprobs": top}]}
        return said("4", "length", content, tokens)
    return said(f"Hypothesis {name} follows.", tokens=tokens)


def settings_of_run(folder: Path, url: str, num_rows: int, store: str = "store", **sections: dict) -> dict:
    """Write so many sentences, and return the settings of a run on them at an endpoint."""
    lines = [f"This is sentence number {i} out of many." for i in range(num_rows)]
    (folder / "in.txt").write_text("\n".join(lines) + "\n")
    llm = {"engine": "openai", "model": "m", "base_url": url, **sections.pop("llm", {})}
    generate = {"omega": 0, "rows_per_shard": 10, **sections.pop("generate", {})}
    return {
        "name": "t",
        "store": str(folder / store),
        "input": {"paths": [str(folder / "in.txt")]},
        "llm": llm,
        "generate": generate,
        **sections,
    }


def rows_of(config):
    manifest = current(Store.of(config)).manifest("scored")
    store = Store.of(config)
    tables = [*iter_tables(store, manifest), *iter_rejects(store, manifest)]
    return {row["row_id"]: row for table in tables for row in table.to_pylist()}, manifest.counters
