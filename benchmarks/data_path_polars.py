"""The data path beside a polars program that does the same work: wall and CPU seconds, and peak memory.

    pip install --target /tmp/polars polars
    PYTHONPATH=/tmp/polars .venv/bin/python benchmarks/data_path_polars.py --rows 1000000 --rounds 3

Both read one file of lines, normalise to NFC, apply the filters, make ids, remove exact duplicates, subtract
what is known, join it, apply Eq. 4 and write Parquet after each stage. The two take turns, each in a process
of its own with as many threads or workers as there are cores. CPU seconds are those of all processes. Imports
and the start of Ray, of Ray Data and of the first workers are not in the sum; they are printed as "start".
The polars program is what one would write without a store: 64-bit ids of its own hash, a file for each
stage, and no checksum, manifest, reject with a reason, fsync or lease. polars is no dependency of ours.
Expected: ratios of at most 2.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from interleaved import write_result
from llm_cache import fill_cache

from multicsr.config import Config
from multicsr.execution.pool import Pool, map_items
from multicsr.execution.ray_session import start_ray
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.rows import WRITTEN
from multicsr.storage.transaction import open_transaction

WORDS = ["man", "woman", "child", "dog", "walks", "sits", "plays", "in", "on", "near", "the", "park", "house"]
ACCENTED = ["caf\u00e9", "M\u00fcller", "\u00e9t\u00e9", "na\u00efve"]
STAGES = ("ingest", "plan and join", "curate", "publish")
LEAST_WORDS, MOST_WORDS = 3, 64
ALPHA, BETA, GAMMA = 3.0, 3.0, 0.5
Seconds = dict[str, dict[str, float]]


def write_corpus(path: Path, number: int) -> None:
    """Write short sentences: 5% with accents; 1% each repeated, too short, with two blanks, not in NFC."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for i in range(number):
            words = [*draw.choices(WORDS, k=11), f"{i}."]
            match i % 100:
                case 0:
                    words = ["The same sentence again and again."]
                case 1:
                    words = [str(i)]
                case 2:
                    words[4] = "  "
                case 3:
                    words[4] = "cafe\u0301"
                case rest if rest < 9:
                    words[4] = ACCENTED[i % len(ACCENTED)]
            file.write(" ".join(words) + "\n")


class Watch:
    """CPU seconds of this process and all below it, and the largest private memory of one of them."""

    def __init__(self) -> None:
        self._cpu_s: dict[int, float] = {}
        self._largest_mib = 0.0
        self._stop = threading.Event()
        threading.Thread(target=self._repeat, daemon=True).start()

    def cpu_s(self) -> float:
        """Return the seconds so far, those of processes that have ended since included."""
        self._look()
        return sum(self._cpu_s.values())

    def worker_mib(self) -> float:
        """Return the largest private memory of a process below this one."""
        return self._largest_mib

    def _repeat(self) -> None:
        while not self._stop.wait(0.2):
            self._look()

    def _look(self) -> None:
        us = psutil.Process()
        for process in (us, *us.children(recursive=True)):
            with suppress(psutil.Error):
                taken, memory = process.cpu_times(), process.memory_info()
                self._cpu_s[process.pid] = taken.user + taken.system
                if process.pid != us.pid and " ".join(process.cmdline()).startswith("ray::"):
                    self._largest_mib = max(self._largest_mib, (memory.rss - memory.shared) / 2**20)


@contextmanager
def timed(watch: Watch, name: str, seconds: Seconds) -> Iterator[None]:
    """Add the wall and CPU seconds of the block to those of a stage."""
    wall, cpu = time.perf_counter(), watch.cpu_s()
    yield
    taken = seconds.setdefault(name, {"wall": 0.0, "cpu": 0.0})
    taken["wall"] += time.perf_counter() - wall
    taken["cpu"] += watch.cpu_s() - cpu


def run_ours(source: Path, folder: Path, watch: Watch) -> tuple[Seconds, int]:
    """Run the stages of the package; return their seconds and the number of curated rows."""
    config = Config.model_validate(
        {
            "name": "data-path",
            "store": str(folder / "store"),
            "input": {"paths": [str(source)]},
            "ingest": {"min_words": LEAST_WORDS, "max_words": MOST_WORDS},
            "llm": {"engine": "fake"},
            "curate": {"alpha": ALPHA, "beta": BETA, "gamma": GAMMA},
        }
    )
    progress, seconds = SilentProgress(), Seconds()
    with ExitStack() as running:
        with timed(watch, "start", seconds):
            running.enter_context(start_ray(os.cpu_count() or 1))
            transaction = running.enter_context(open_transaction(config, "bench", progress))
            list(map_items("start", lambda: abs, range(os.cpu_count() or 1), Pool()))
        for name, stage in zip(STAGES, ("ingest", "generate", "curate"), strict=False):
            if stage == "generate":
                fill_cache(config, transaction, new_every=0)
            with timed(watch, name, seconds):
                full_run.STAGES[stage](config, transaction, progress, full_run.labels_of(config))
        with timed(watch, "publish", seconds):
            transaction.publish()
        return seconds, transaction.snapshot.manifest("curated").rows_out


def run_polars(source: Path, folder: Path, watch: Watch) -> tuple[Seconds, int]:
    """Run the polars program; return the seconds of its stages and the number of curated rows."""
    import polars as pl

    sentences, cache, scored, curated = (folder / f"{name}.parquet" for name in ("s", "cache", "scored", "c"))
    seconds = Seconds()
    text = pl.col("text")
    control = r"[\x00-\x08\x0e-\x1f\x7f-\x{84}\x{86}-\x{9f}\x{fffd}-\x{ffff}]"
    invisible = r"[\x{ad}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2064}\x{2066}-\x{2069}\x{feff}]"
    num_words = text.str.count_matches(" ", literal=True) + 1
    with timed(watch, "ingest", seconds):
        rows = (
            pl.scan_lines(source, name="text", row_index_name="position")
            .filter(~text.str.contains(control), ~text.str.contains("<", literal=True))
            .with_columns(
                text.str.replace_all(invisible, "")
                .str.normalize("NFC")
                .str.replace_all(r"\s+", " ")
                .str.strip_chars()
            )
            .filter(num_words.is_between(LEAST_WORDS, MOST_WORDS))
            .with_columns(
                row_id=pl.concat_str(pl.lit("en\0"), text).hash(),
                language=pl.lit("en"),
                source=pl.lit(source.name),
            )
        )
        rows.unique("row_id", keep="first").sort("row_id").sink_parquet(sentences, compression="zstd")
    _fill_polars_cache(sentences, cache)
    with timed(watch, "plan and join", seconds):
        made, known = pl.scan_parquet(sentences), pl.scan_parquet(cache)
        todo = made.join(known.select("row_id"), on="row_id", how="anti").select(pl.len()).collect().item()
        made.join(known, on="row_id").sink_parquet(scored, compression="zstd")
    if todo:
        raise SystemExit(f"{todo} rows are not known")
    with timed(watch, "curate", seconds):
        a, b = pl.col("entailment_expected"), pl.col("contradiction_expected")
        kept = pl.scan_parquet(scored).filter(a >= ALPHA, b <= BETA, a >= b + GAMMA)
        kept.with_columns(a=a, b=b, swapped=False).sink_parquet(folder / "made", compression="zstd")
    with timed(watch, "publish", seconds):
        (folder / "made").rename(curated)
    return seconds, pl.scan_parquet(curated).select(pl.len()).collect().item()


def _fill_polars_cache(sentences: Path, cache: Path) -> None:
    """Write the results of the LLM for all sentences, in the columns of `WRITTEN`, as `fill_cache` does."""
    schema = pa.schema([pa.field("row_id", pa.uint64()), *list(WRITTEN)[1:]])
    with pq.ParquetWriter(cache, schema, compression="zstd") as writer:
        for batch in pq.ParquetFile(sentences).iter_batches(100_000, columns=["row_id", "text"]):
            columns = {field.name: pa.nulls(len(batch), field.type) for field in schema}
            text = batch["text"].cast(pa.string())
            columns |= {"row_id": batch["row_id"], "entailment": text, "contradiction": text}
            for side, score in (("entailment", 4.0), ("contradiction", 1.0)):
                columns[f"{side}_expected"] = pa.repeat(pa.scalar(score, pa.float32()), len(batch))
            writer.write_table(pa.table(columns, schema=schema))


WAYS: dict[str, Callable[[Path, Path, Watch], tuple[Seconds, int]]] = {"ours": run_ours, "polars": run_polars}


def measure(way: str, source: Path) -> dict[str, object]:
    """Return the seconds of each stage, the rows that came out and the peaks in MiB."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        seconds, num_rows = WAYS[way](source, Path(folder), watch)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "rows": num_rows, "peak_mib": peak_mib, "worker_peak_mib": watch.worker_mib()}


def compare(rows: int, rounds: int) -> dict[str, object]:
    """Let the two take turns on a corpus; return all that was measured."""
    found: dict[str, list[dict[str, object]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "sentences.txt"
        write_corpus(source, rows)
        for number in range(rounds):
            for way in list(WAYS)[:: 1 if number % 2 else -1]:
                command = [sys.executable, __file__, "--only", way, "--source", str(source)]
                result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found[way].append(json.loads(result.stdout.splitlines()[-1]))
                print(rows, way, json.dumps(found[way][-1]), flush=True)
    return {way: results for way, results in found.items()}


def show(rows: int, found: dict[str, object]) -> dict[str, object]:
    """Print the seconds and the ratios of each stage and of all, and return them."""
    table: dict[str, object] = {}
    for stage in (*STAGES[:-1], "all"):  # to publish takes no time in either
        for clock in ("wall", "cpu"):
            ours, polars = (
                np.array([_seconds(result["seconds"], stage, clock) for result in found[way]]) for way in WAYS
            )
            low, median, high = np.percentile(ours / polars, (25, 50, 75)).round(2)
            table[f"{stage}, {clock}"] = {
                "ours_s": float(np.median(ours).round(2)),
                "polars_s": float(np.median(polars).round(2)),
                "ratio": [float(low), float(median), float(high)],
            }
            print(
                f"{rows:>10,} {stage:14} {clock:5} {np.median(ours):8.2f} s, "
                f"polars {np.median(polars):7.2f} s: {median:.2f} (quartiles {low:.2f} to {high:.2f})",
                flush=True,
            )
    starts = {
        clock: float(np.median([result["seconds"]["start"][clock] for result in found["ours"]]).round(2))
        for clock in ("wall", "cpu")
    }
    print(f"{rows:>10,} start of Ray: {starts}", flush=True)
    return {**table, "start": starts}


def _seconds(seconds: Seconds, stage: str, clock: str) -> float:
    return sum(seconds[name][clock] for name in STAGES if stage in (name, "all"))


def main() -> None:
    """Compare at each size; print ratios and peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.only, given.source)))
        return
    for rows in given.rows:
        found = compare(rows, given.rounds)
        out = {result["rows"] for results in found.values() for result in results}
        if len(out) > 1:
            raise SystemExit(f"the two do not keep the same number of rows: {out}")
        peaks = {
            f"{way}_{name}": float(np.median([result[name] for result in results]).round())
            for way, results in found.items()
            for name in ("peak_mib", "worker_peak_mib")
        }
        print(rows, peaks, flush=True)
        figures = {"polars": version("polars"), "rounds": given.rounds, "rows_out": out.pop(), "peaks": peaks}
        write_result(f"data_path_polars_{rows}", {**figures, **show(rows, found)})


if __name__ == "__main__":
    main()
