"""What trust costs: a bucket over a disk, publication, and the way back into a job that was 90% done.

    .venv/bin/python benchmarks/durable.py [--rows 200000] [--rounds 3]

Raw text to curated rows with the fake engine, on a disk and in a bucket (moto's S3 over HTTP, a process of
its own that takes a core of this machine), in turns; the median of the rounds' ratios counts. Then in either
a job is interrupted when its LLM has done 90% of the rows, and begun again: until its first new shard is
done, against the time that reading the sources took.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import boto3
from data_path import stage_seconds, write_sentences

from multicsr.config import Config
from multicsr.execution.ray_session import start_ray
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.storage.transaction import open_transaction

SERVER = Path(__file__).parents[1] / "tests" / "support" / "s3" / "serve.py"
BUCKET = "bench"
SHARD = 5000
"""Rows."""
PUBLICATION = "publication"


class Watch(SilentProgress):
    """Notes when rows were done, and interrupts the job after so many."""

    def __init__(self, stop_after: float = float("inf")) -> None:
        self._stop_after, self._rows = stop_after, 0
        self.moments: list[float] = []

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._rows += amount
        self.moments.append(time.perf_counter())
        if self._rows >= self._stop_after:
            raise KeyboardInterrupt


@contextmanager
def bucket() -> Iterator[str]:
    """The endpoint of a server with one bucket."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    with subprocess.Popen(
        [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        port = server.stdout.readline().strip() if server.stdout else ""
        endpoint = f"http://127.0.0.1:{port}"
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint  # the server ends when its standard input does


def make_config(source: Path, store: str, endpoint: str, seed: int) -> Config:
    s3 = {"s3": {"endpoint": endpoint}} if store.startswith("s3://") else {}
    return Config.model_validate(
        {
            "name": "durable",
            "store": store,
            "input": {"paths": [str(source)]},
            "llm": {"engine": "fake"},
            "generate": {"rows_per_shard": SHARD, "actors": os.cpu_count() or 1, "batch_size": 1024},
            "seed": seed,
            **s3,
        }
    )


def run_seconds(config: Config) -> dict[str, float]:
    """From raw text to a published version."""
    with open_transaction(config, "bench", SilentProgress()) as transaction:
        seconds = stage_seconds(config, transaction, SilentProgress())
        started = time.perf_counter()
        transaction.publish()
        seconds[PUBLICATION] = time.perf_counter() - started
    return seconds


def resume_seconds(config: Config, rows: int) -> tuple[float, float, float]:
    """(Reading; in a job that did 90%, until the LLM's first new shard is done; until its end)."""
    known = full_run.labels_of(config)
    with open_transaction(config, "bench", SilentProgress()) as transaction:
        started = time.perf_counter()
        full_run.ingest(config, transaction, SilentProgress())
        read_s = time.perf_counter() - started
        with suppress(KeyboardInterrupt):
            full_run.generate(config, transaction, Watch(stop_after=0.9 * rows), known)
    watch = Watch()
    with open_transaction(config, "bench", SilentProgress()) as transaction:
        started = time.perf_counter()
        full_run.ingest(config, transaction, SilentProgress())
        full_run.generate(config, transaction, watch, known)
    _known, first_new, *_ = watch.moments
    return read_s, first_new - started, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.rows < 20 * SHARD:
        parser.error(f"--rows is below {20 * SHARD:,}: a job 90% done would have no two shards left")
    with tempfile.TemporaryDirectory() as folder, bucket() as endpoint, start_ray(os.cpu_count() or 1):
        source = Path(folder) / "sentences.txt"
        write_sentences(source, given.rows)

        def config(place: str, turn: int) -> Config:
            return make_config(source, f"{place}/{turn}", endpoint, seed=turn)

        places = {"disk": f"{folder}/store", "bucket": f"s3://{BUCKET}"}
        rounds = []
        for turn in range(given.rounds + 1):
            rounds.append({name: run_seconds(config(place, turn)) for name, place in places.items()})
        rounds = rounds[1:]  # the first one starts workers
        print(f"{given.rows:,} rows, {given.rounds} rounds", flush=True)
        for name in places:
            total = median(sum(measured[name].values()) for measured in rounds)
            share = median(measured[name][PUBLICATION] / sum(measured[name].values()) for measured in rounds)
            print(f"{name}: {total:.1f} s; publication {share:.2%} of it; target at most 2%")
        ratio = median(sum(m["bucket"].values()) / sum(m["disk"].values()) for m in rounds)
        print(f"bucket / disk: {ratio:.2f}; target at most 1.3", flush=True)
        for name, place in places.items():
            read_s, first_s, all_s = resume_seconds(config(place, given.rounds + 1), given.rows)
            print(
                f"{name}, 90% done: first new shard after {first_s:.1f} s, {first_s / read_s:.2f} of the "
                f"{read_s:.1f} s that reading took; target at most 1.1; all done after {all_s:.1f} s"
            )


if __name__ == "__main__":
    main()
