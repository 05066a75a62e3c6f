"""The share of the data path's CPU time that goes into checksums, raw text to curated rows.

    .venv/bin/python benchmarks/verification.py --rows 1000000 --runs 5

The LLM cache holds nearly all rows already, so that reading and writing is all that is done: with an LLM the
share is smaller. The stages run in one process, without Ray, whose own CPU time would make the share
smaller, too. Counted is all time within the functions that hash, and that of reading the bytes to be
hashed. Each run has a process of its own. Expected: a median of at most 3 %.
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from llm_cache import fill_cache, write_sentences

from multicsr.config import Config
from multicsr.execution import pool
from multicsr.execution.attempts import Attempts
from multicsr.execution.outcome import Outcome
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.storage import store
from multicsr.storage.transaction import open_transaction
from multicsr.storage.verified import VerifiedFile


class Timer(threading.local):
    """CPU seconds within functions; a function within another one counts once."""

    spent_s: ClassVar[list[float]] = []

    def __init__(self) -> None:
        self._depth = 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same function, timed."""

        def call(*args: object, **kwargs: object) -> object:
            self._depth += 1
            started_s = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.spent_s.append(time.thread_time() - started_s)

        return call


class InProcess:
    """The workers of a stage, one after another in this process."""

    def __init__(
        self,
        make: Callable[[], Callable[..., object]],
        items: list[object],
        workers: pool.Pool,
        attempts: Attempts,
    ) -> None:
        self._make, self._items = make, items

    def iter_rows(self) -> Iterator[dict[str, bytes]]:
        work = self._make()
        return ({"result": pickle.dumps(Outcome(work(item)))} for item in self._items)


def measure(rows: int, folder: Path) -> dict[str, float]:
    """CPU seconds of the stages, and of verification within them."""
    (folder / "in").mkdir()
    write_sentences(folder / "in", rows, files=8)
    config = Config.model_validate(
        {
            "name": "verification",
            "store": str(folder / "store"),
            "input": {"paths": [str(folder / "in")]},
            "llm": {"engine": "fake"},
            "generate": {"rows_per_shard": 10_000, "batch_size": 1024},
        }
    )
    pool._results = InProcess  # type: ignore[assignment]
    pool.start_ray = lambda cpus: nullcontext()  # type: ignore[assignment]
    timer, cpu_s = Timer(), 0.0
    store.checksum = timer.timed(store.checksum)
    store.checksum_of = timer.timed(store.checksum_of)
    store.block_checksums = timer.timed(store.block_checksums)
    store.Store.read_verified = timer.timed(store.Store.read_verified)  # type: ignore[method-assign]
    VerifiedFile.read = timer.timed(VerifiedFile.read)  # type: ignore[method-assign]
    with open_transaction(config, "bench", SilentProgress()) as transaction:
        for name in ("ingest", "generate", "curate"):
            if name == "generate":
                so_far = len(timer.spent_s)
                fill_cache(config, transaction)
                del timer.spent_s[so_far:]
            started_s = time.process_time()
            full_run.STAGES[name](config, transaction, SilentProgress(), full_run.labels_of(config))
            cpu_s += time.process_time() - started_s
    spent_s = sum(timer.spent_s)
    return {"cpu_s": cpu_s, "verification_s": spent_s, "share": spent_s / cpu_s}


def main() -> None:
    """Print a line for each run, and the median share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(given.rows, Path(folder))))
        return
    shares = []
    for _ in range(given.runs):
        command = [sys.executable, __file__, "--only", "--rows", str(given.rows)]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(result.stdout.splitlines()[-1])
        shares.append(found["share"])
        print("  ".join(f"{name} {value:,.4f}" for name, value in found.items()), flush=True)
    print(f"median share of verification in CPU time at {given.rows:,} rows: {median(shares):.2%}")


if __name__ == "__main__":
    main()
