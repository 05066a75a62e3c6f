"""The data path with the fake engine, raw text to curated rows: rows a second, and the driver's peak memory.

    .venv/bin/python benchmarks/data_path.py --rows 100000 1000000

Each size runs in a process of its own, so that its peak is its own. Ray's start is not in the time, the start
of its workers is. Expected on 2 cores: at least 5,000 rows/s, and a ratio of peaks below 1.1.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from multicsr.config import Config
from multicsr.execution.ray_session import start_ray
from multicsr.observability.progress import LineProgress, Progress
from multicsr.pipeline import full_run
from multicsr.storage.transaction import Transaction, open_transaction

WORDS = ["man", "woman", "child", "dog", "walks", "sits", "plays", "in", "on", "near", "the", "park", "house"]
STAGES = ("ingest", "generate", "curate")


def write_sentences(path: Path, number: int) -> None:
    """Short sentences, one in a hundred of them a repetition."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for i in range(number):
            words = " ".join(draw.choices(WORDS, k=11))
            file.write(f"{words} {i}.\n" if i % 100 else "The same sentence again and again.\n")


def stage_seconds(config: Config, transaction: Transaction, progress: Progress) -> dict[str, float]:
    """Raw text to curated rows."""
    seconds = {}
    for name in STAGES:
        started = time.perf_counter()
        full_run.STAGES[name](config, transaction, progress, full_run.labels_of(config))
        seconds[name] = time.perf_counter() - started
    return seconds


def measure(number: int, actors: int) -> dict[str, float]:
    """Run the path over `number` sentences; seconds of each stage, rows/s, and the peak in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "sentences.txt"
        write_sentences(source, number)
        config = Config.model_validate(
            {
                "name": "data-path",
                "store": f"{folder}/store",
                "input": {"paths": [str(source)]},
                "llm": {"engine": "fake"},
                "generate": {"rows_per_shard": 10_000, "actors": actors, "batch_size": 1024},
            }
        )
        progress = LineProgress()
        with start_ray(actors), open_transaction(config, "bench", progress) as transaction:
            seconds = stage_seconds(config, transaction, progress)
            transaction.publish()
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rate = number / sum(seconds.values())
    return {"rows": number, **seconds, "rows_per_s": rate, "driver_peak_mib": peak_kib / 1024}


def main() -> None:
    """Print a line for each size, and the ratio of the last peak to the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--actors", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.rows[0], given.actors)))
        return
    results = []
    for rows in given.rows:
        command = [sys.executable, __file__, "--only", "--rows", str(rows), "--actors", str(given.actors)]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results.append(json.loads(result.stdout))
        print("  ".join(f"{name} {value:,.1f}" for name, value in results[-1].items()), flush=True)
    first, last = results[0]["driver_peak_mib"], results[-1]["driver_peak_mib"]
    print(f"driver peak at {given.rows[-1]:,} rows / at {given.rows[0]:,} rows: {last / first:.3f}")


if __name__ == "__main__":
    main()
