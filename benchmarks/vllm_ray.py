"""What Ray Data costs around the vLLM engine: rows a second in one actor over those of a bare loop.

python benchmarks/vllm_ray.py [--rows 5000]

Both work on two shards at once, in one run. Counted is the time from the first shard done to the last, so
that starting Ray, actor and engine, which is paid once a run, is not. Lengths are skewed: sentences of the
demo, and sentences joined from two to four of them.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pyarrow as pa
from generation import read_premises

from multicsr.config import Config
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.stages.generate.triplets import TripletStage
from multicsr.storage.manifest import iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current

ROWS_PER_SHARD = 250


def skewed(count: int) -> list[str]:
    """Sentences; every third is joined from two to four."""
    single = read_premises(count)
    joined = [" ".join(single[i : i + 2 + i % 3]) for i in range(0, len(single), 2)]
    return list(islice((text for pair in zip(single, joined, strict=False) for text in pair), count)) + single


def configure(folder: Path, rows: int) -> Config:
    source = folder / "sentences.txt"
    source.write_text("\n".join(dict.fromkeys(skewed(rows))) + "\n", encoding="utf-8")
    return Config.model_validate(
        {
            "name": "bench",
            "store": str(folder / "store"),
            "input": {"paths": [str(source)]},
            "llm": {"engine": "vllm"},
            "generate": {"rows_per_shard": ROWS_PER_SHARD, "batch_size": 32, "max_rejected": 1.0},
        }
    )


def bare(config: Config, store: Store) -> tuple[float, int]:
    """(Rows a second after the first shard, all rows) of two threads over the shards."""
    stage = TripletStage(config)
    rows = pa.concat_tables(iter_tables(store, current(store).manifest("sentences")))
    tables = [rows.slice(start, ROWS_PER_SHARD) for start in range(0, rows.num_rows, ROWS_PER_SHARD)]

    def work(table: pa.Table) -> tuple[float, int]:
        stage(table)
        return time.time(), table.num_rows

    with ThreadPoolExecutor(2) as threads:
        done = sorted(threads.map(work, tables))
    stage.close()
    return _rate(done), sum(rows for _, rows in done)


def in_ray(config: Config, store: Store) -> float:
    """Rows a second after the first shard, from the times of the LLM cache's files."""
    full_run.run(config, SilentProgress(), until="generate")
    changed_s = {info.name: info.changed_s for info in store.infos("llm_cache")}
    done = [
        (changed_s[entry.path], store.read_table(entry, ["row_id"]).num_rows)
        for entry in store.named_entries("llm_cache")
    ]
    return _rate(sorted(done))


def _rate(done: list[tuple[float, int]]) -> float:
    return sum(rows for _, rows in done[1:]) / (done[-1][0] - done[0][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = configure(Path(folder), arguments.rows)
        store = full_run.run(config, SilentProgress(), until="ingest")
        without, rows = bare(config, store)
        within = in_ray(config, store)
    print(f"{rows:,} rows: bare {without:.1f} rows/s, in Ray Data {within:.1f} rows/s")
    print(f"Ray Data / bare: {within / without:.3f}; target at least 0.95")


if __name__ == "__main__":
    main()
