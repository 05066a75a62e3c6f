"""Millions of rows through ingest, the LLM cache's anti-join and publication; rows a second and peak memory.

    .venv/bin/python benchmarks/llm_cache.py --rows 1000000 10000000

The LLM has done all rows but one in a hundred (its cache is made by hand, outside the time), so that what is
measured is finding that out, writing the rest with the fake engine, and putting the rows together. Each size
runs in a process of its own. Expected: peaks that do not grow with the corpus, and a time that grows as it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from multicsr.config import Config
from multicsr.execution.ray_session import start_ray
from multicsr.observability.progress import LineProgress
from multicsr.pipeline import full_run
from multicsr.rows import WRITTEN
from multicsr.stages.generate.fingerprint import scoring_settings, writing_settings
from multicsr.stages.generate.llm_cache import CacheKey
from multicsr.storage.id_span import IdSpan
from multicsr.storage.manifest import iter_tables
from multicsr.storage.transaction import Transaction, open_transaction

ROWS_PER_FILE = 100_000
NEW_EVERY = 100
"""One row in so many is not known."""


def write_sentences(path: Path, number: int, files: int) -> None:
    """Short sentences, none twice."""
    for part in range(files):
        with (path / f"{part}.txt").open("w", encoding="utf-8") as file:
            for i in range(part, number, files):
                file.write(f"A sentence of moderate length that has the number {i} in it.\n")


def fill_cache(config: Config, transaction: Transaction, new_every: int = NEW_EVERY) -> None:
    """Fill the LLM cache as if an earlier run had done all rows, or all but one in `new_every`."""
    settings = {"writing": writing_settings(config), "scoring": scoring_settings(config)}
    cache_key = CacheKey.of(settings)
    for table in iter_tables(
        transaction.store, transaction.snapshot.manifest("sentences"), ["row_id", "text"]
    ):
        for start in range(0, table.num_rows, ROWS_PER_FILE):
            part = table.slice(start, ROWS_PER_FILE)
            if new_every:
                part = part.filter(pa.array(np.arange(part.num_rows) % new_every != 0))
            columns = {field.name: pa.nulls(part.num_rows, field.type) for field in WRITTEN}
            columns |= {"row_id": part["row_id"], "entailment": part["text"], "contradiction": part["text"]}
            for side, score in (("entailment", 4.0), ("contradiction", 1.0)):
                columns[f"{side}_expected"] = pa.repeat(pa.scalar(score, pa.float32()), part.num_rows)
            ends = IdSpan(part["row_id"][0].as_py(), part["row_id"][-1].as_py())
            stem = cache_key.file(part["row_id"], ends)
            transaction.store.write_named_table(stem, pa.table(columns, schema=WRITTEN))


class Watch:
    """The largest worker process while the block runs, in MiB."""

    def __enter__(self) -> "Watch":
        self.largest_mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        us = psutil.Process()
        while not self._stop.wait(0.2):
            for process in us.children(recursive=True):
                with suppress(psutil.Error):
                    if " ".join(process.cmdline()).startswith("ray::"):
                        private = process.memory_info().rss - process.memory_info().shared
                        self.largest_mib = max(self.largest_mib, private / 2**20)


def measure(number: int, folder: Path) -> dict[str, float]:
    """Seconds of each stage, rows/s of all, peaks in MiB."""
    (folder / "in").mkdir()
    write_sentences(folder / "in", number, files=8)
    config = Config.model_validate(
        {
            "name": "llm_cache",
            "store": str(folder / "store"),
            "input": {"paths": [str(folder / "in")]},
            "llm": {"engine": "fake"},
            "generate": {"rows_per_shard": 10_000, "actors": os.cpu_count() or 1, "batch_size": 1024},
        }
    )
    progress, seconds = LineProgress(), {}
    with (
        start_ray(os.cpu_count() or 1),
        Watch() as watch,
        open_transaction(config, "bench", progress) as transaction,
    ):
        for name in ("ingest", "generate", "curate"):
            if name == "generate":
                fill_cache(config, transaction)
            started = time.perf_counter()
            full_run.STAGES[name](config, transaction, progress, full_run.labels_of(config))
            seconds[f"{name}_s"] = time.perf_counter() - started
        started = time.perf_counter()
        transaction.publish()
        seconds["publish_s"] = time.perf_counter() - started
        counted = transaction.snapshot.manifest("scored").counters
    assert counted["rows_reused"] + counted["rows_written"] == number, counted  # noqa: S101 - or it measures nothing
    return {
        "rows": number,
        "written": counted["rows_written"],
        **seconds,
        "rows_per_s": number / sum(seconds.values()),
        "driver_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "worker_peak_mib": watch.largest_mib,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(given.rows[0], Path(folder))))
        return
    results = []
    for rows in given.rows:
        command = [sys.executable, __file__, "--only", "--rows", str(rows)]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results.append(json.loads(result.stdout.splitlines()[-1]))
        print("  ".join(f"{name} {value:,.1f}" for name, value in results[-1].items()), flush=True)
    first, last = results[0], results[-1]
    for name in ("rows_per_s", "driver_peak_mib", "worker_peak_mib"):
        print(f"{name} at {last['rows']:,} rows / at {first['rows']:,} rows: {last[name] / first[name]:.3f}")


if __name__ == "__main__":
    main()
