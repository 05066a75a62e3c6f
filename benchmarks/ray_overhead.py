"""What Ray Data costs around the engine: the same shards in a bare loop and in one actor, in one run.

python benchmarks/ray_overhead.py [--premises 512]

Starting an actor and loading the model in it is paid once a run, so it is shown apart.
"""

import argparse
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.stages.generate.triplets import TripletStage
from multicsr.storage.manifest import iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current

ROOT = Path(__file__).parents[1]


def configure(folder: Path, premises: int) -> Config:
    """The demo's settings over its first sentences, one actor, four shards."""
    lines = (ROOT / "multicsr/assets/demo/sentences.tsv").read_text(encoding="utf-8").splitlines()
    source = folder / "sentences.tsv"
    source.write_text("\n".join(lines[: premises + 1]) + "\n", encoding="utf-8")
    overrides = [f"store={folder / 'store'}", f"input.paths=[{source}]", "generate.actors=1"]
    return load_config(ROOT / "configs/demo.yaml", [*overrides, f"generate.rows_per_shard={premises // 4}"])


def bare(config: Config, store: Store) -> float:
    """Seconds of a plain loop over the shards, the model loaded before."""
    stage = TripletStage(config)
    rows = pa.concat_tables(iter_tables(store, current(store).manifest("sentences")))
    size = config.generate.rows_per_shard
    tables = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
    started = time.perf_counter()
    for table in tables:
        stage(table)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--premises", type=int, default=512)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = configure(Path(folder), arguments.premises)
        store = full_run.run(config, SilentProgress(), until="ingest")
        started = time.perf_counter()
        full_run.run(config, SilentProgress(), until="generate")
        whole_s = time.perf_counter() - started
        shards_s = current(store).manifest("scored").counters["worker_seconds"]
        loop_s = bare(config, store)
    print(f"bare loop {loop_s:.1f} s; shards in the actor {shards_s:.1f} s; the stage {whole_s:.1f} s")
    print(f"shards in the actor / bare loop: {shards_s / loop_s:.3f}; target at most 1.05")
    print(f"start of Ray and of the actor, once a run: {whole_s - shards_s:.1f} s")


if __name__ == "__main__":
    main()
