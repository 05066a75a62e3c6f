"""What Ray Train costs a training, and how soon a killed worker is replaced: one run on this machine.

python benchmarks/training_ray.py [--layers 2] [--batch 64] [--epochs 2] [--checkpoint-every 5] [--gpu]
    [--triplets FILE]

The demo's triplets, or those of a TSV, are trained on twice with one worker in one Ray: undisturbed, for the
share of the time that the worker waits for rows and for P's vectors; and for one epoch, to kill the worker
after a checkpoint. Run it where nobody else computes: a worker that replaces another imports and loads
everything anew. With --gpu the worker has a GPU, and DeepSpeed (ZeRO 1) in bfloat16.
"""

import argparse
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow as pa
import torch
from training import Bench

from multicsr.artifacts import LOG, Step, read_log
from multicsr.config import Config
from multicsr.execution.ray_session import start_ray
from multicsr.observability.progress import SilentProgress
from multicsr.rows import CURATED, row_id
from multicsr.stages.train.checkpoint_folder import PATTERN
from multicsr.stages.train.trainer import train
from multicsr.storage.manifest import Manifest, now, rows_digest, write_manifest
from multicsr.storage.store import Store
from multicsr.storage.versions import Snapshot

POLL_S = 0.05
FILES = 4
WORKER = "RayTrainWorker"


def make_curated(store: Store, triplets: pa.Table) -> Snapshot:
    """A `curated` artifact of the triplets, in a few files."""
    rows = []
    for position, row in enumerate(triplets.to_pylist()):
        filled = {name: None for name in CURATED.names} | row
        filled |= {"row_id": row_id(row["text"], "en"), "language": "en", "source": "demo", "swapped": False}
        rows.append(filled | {"position": position, "a": 5.0, "b": 0.0})
    table = pa.Table.from_pylist(rows, schema=CURATED)
    size = -(-len(rows) // FILES)
    parts = [table.slice(start, size) for start in range(0, len(rows), size)]
    manifest = Manifest(
        stage="curate",
        run="bench",
        fingerprint="bench",
        code_version="bench",
        settings={},
        created=now(),
        seconds=0,
        rows_in=len(rows),
        rows_out=len(rows),
        rejected={},
        rows_digest=rows_digest(table["row_id"]),
        files=[store.write_table(f"curated/bench/rows/{n}.parquet", part) for n, part in enumerate(parts)],
        reject_files=[],
        counters={},
    )
    write_manifest(store, "curated", manifest)
    return Snapshot(store, {"curated": manifest.fingerprint})


def read_steps(log: Path) -> list[Step]:
    return [line for line in read_log(log) if isinstance(line, Step)]


def print_shares(steps: list[Step]) -> None:
    """Of the time of the steps, what was waiting."""

    def share(of: list[Step], wait: str) -> float:
        return sum(getattr(step, wait) for step in of) / sum(step.seconds for step in of)

    print(f"{len(steps)} steps, {sum(step.seconds for step in steps):.1f} s")
    print(f"waiting for rows:        {share(steps[1:], 'ingest_wait_s'):.2%}; target at most 2%")
    print(f"    with the first step: {share(steps, 'ingest_wait_s'):.2%}")
    for epoch in (1, 2):
        some = [step for step in steps[1:] if step.epoch == epoch]
        if some:
            print(f"waiting for P, epoch {epoch}:  {share(some, 'mask_wait_s'):.2%}")


def first_checkpoint(store: Store, training: Future[Manifest]) -> Path:
    """Of the training under way, once it is there."""
    while not training.done():
        if found := [*Path(store.uri("training")).glob(f"*/{PATTERN}")]:
            return found[0]
        time.sleep(POLL_S)
    training.result()
    raise LookupError("the training ended before its first checkpoint: lower --checkpoint-every")


def kill_worker() -> None:
    """As a machine that is lost: no last words."""
    for process in psutil.Process().children(recursive=True):
        if WORKER in " ".join(process.cmdline()):
            process.kill()
            return
    raise LookupError(f"no process is called {WORKER}")


def disturb(store: Store, training: Future[Manifest]) -> str:
    """Kill the worker after its first checkpoint; how long it took until one that replaces it did a step."""
    checkpoint = first_checkpoint(store, training)
    log = checkpoint.with_name(LOG)
    before = log.stat()
    kill_worker()
    started = time.monotonic()
    lost = read_steps(log)[-1].step
    kept = int(torch.load(checkpoint, weights_only=True)["step"])
    # The replacement begins a log of its own, with the lines up to the checkpoint.
    while log.stat().st_ino == before.st_ino or read_steps(log)[-1].step <= kept:
        time.sleep(POLL_S)
    seconds = time.monotonic() - started
    return f"killed after step {lost}: step {kept + 1} again after {seconds:.1f} s; target at most 60 s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--layers", type=int, default=2, help="of MiniLM; fewer are quicker to feed and to fill"
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--checkpoint-every", type=float, default=5.0, help="seconds")
    Bench.add_options(parser)
    given = parser.parse_args()
    bench = Bench.of(given)
    with tempfile.TemporaryDirectory() as folder, start_ray(1), ThreadPoolExecutor(1) as thread:
        training = bench.config(
            pooling="mean",
            global_batch=given.batch,
            epochs=given.epochs,
            checkpoint_every_s=given.checkpoint_every,
        ).model_dump(exclude_unset=True)
        tree = {"name": "bench", "store": f"{folder}/store", "input": {"paths": ["none"]}, "train": training}
        config = Config.model_validate(tree)
        store = Store.open(config.store)
        snapshot = make_curated(store, bench.triplets)
        model = train(config, snapshot, SilentProgress())
        print_shares(read_steps(Path(store.uri("model"), model.fingerprint, LOG)))
        one_epoch = config.train.model_copy(update={"epochs": 1})
        other = config.model_copy(update={"seed": config.seed + 1, "train": one_epoch})  # trained anew
        print(disturb(store, thread.submit(train, other, snapshot, SilentProgress())))


if __name__ == "__main__":
    main()
