"""What the mask and GradCache cost a training step: ratios from one run on this machine.

python benchmarks/training.py [--layers 2] [--batch 64] [--steps 2] [--rounds 3] [--micro-batch 16] [--gpu]
    [--triplets FILE]

Cases are trainings that take turns, --steps steps each, on the same batches of the demo's sentences or of a
TSV of triplets; before these each takes a step that does not count, so that nobody finishes another's work in
its own time. The median of the rounds' ratios counts. All compute with one thread; P in its actor has a
thread of its own, and so needs a core that nobody else uses. With --gpu all of them are on one GPU, through
DeepSpeed (ZeRO 1) in bfloat16, and memory is the GPU's.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from statistics import median

import pyarrow as pa
import torch

from multicsr import labelled_files
from multicsr.artifacts import Step
from multicsr.config import MaskConfig, TrainConfig
from multicsr.execution.ray_session import start_ray
from multicsr.models.resolve import ASSETS
from multicsr.stages.train.data.index import digest_rows, join_index
from multicsr.stages.train.data.source import from_table
from multicsr.stages.train.job import TrainingJob
from multicsr.stages.train.loop import TrainingLoop
from multicsr.stages.train.mask_model.actor import ActorEmbedder
from multicsr.stages.train.mask_model.model import Embedder, InsideEmbedder, MaskModel
from multicsr.stages.train.services import TrainingServices

TIMES = 8
"""Global batch with GradCache over the one without."""
CACHED, ACTOR, INSIDE = "mask cached", "mask by actor, cold", "mask in the step, cold"
TARGETS = {CACHED: "; target at most 1.03", ACTOR: "; target at most 1.10", INSIDE: ""}


@dataclass(frozen=True)
class Bench:
    """What all cases share."""

    layers: int | None
    triplets: pa.Table
    gpu: bool

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """Those beside --layers, whose default is the caller's."""
        parser.add_argument("--gpu", action="store_true", help="on one GPU, through DeepSpeed in bfloat16")
        parser.add_argument("--triplets", help="TSV (anchor, positive, negative); the demo's unless given")

    @classmethod
    def of(cls, given: argparse.Namespace) -> "Bench":
        return cls(given.layers, read_triplets(given.triplets), given.gpu)

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    def config(self, **settings: object) -> TrainConfig:
        on_gpu = {"gpus_per_worker": 1, "dtype": "bfloat16", "deepspeed": {"zero": 1}} if self.gpu else {}
        recipe = {"pooling": "cls", "mlp_head": True, "max_length": 32}
        return TrainConfig.model_validate({"layers": self.layers, **recipe, **on_gpu, **settings})


def read_triplets(file: str | None) -> pa.Table:
    """Triplets that share no sentence: the file's, or the demo's."""
    files = [file] if file else [ASSETS / "demo" / f"{part}_triplets.tsv" for part in ("dev", "test")]
    tasks = [labelled_files.read_triplets(name) for name in files]
    rows, seen = [], set[str]()
    for row in chain.from_iterable(zip(*task.columns(), strict=True) for task in tasks):
        keys = {text.casefold() for text in row}
        if len(keys) == len(row) and not keys & seen:
            rows.append(row)
            seen |= keys
    text, entailment, contradiction = zip(*rows, strict=True)
    ids = [str(number) for number in range(len(text))]
    return pa.table({"row_id": ids, "text": text, "entailment": entailment, "contradiction": contradiction})


def start(
    config: TrainConfig, table: pa.Table, device: str, embedder: Callable[[], Embedder] | None
) -> Iterator[Step]:
    """A training that goes on whenever its next step is asked for."""
    index = join_index([digest_rows(table, config.objective)])
    folder = Path(tempfile.gettempdir()) / "multicsr-bench"  # nothing is written
    job = TrainingJob(
        config=config,
        seed=0,
        run="bench",
        index=index,
        device=device,
        name="bench",
        out=folder,
        events=folder,
    )
    services = TrainingServices(from_table(table, index, config.objective), embedder)
    return TrainingLoop(job, services).steps()


def seconds_of(training: Iterator[Step], steps: int) -> float:
    """Time of so many steps."""
    started = time.perf_counter()
    for _ in islice(training, steps):
        pass
    return time.perf_counter() - started


def take_turns(cases: Mapping[str, Callable[[], float]], rounds: int) -> list[dict[str, float]]:
    """Seconds of each case in each round, after one that warms up."""
    return [{name: measure() for name, measure in cases.items()} for _ in range(rounds + 1)][1:]


def ratio(measured: list[dict[str, float]], name: str, base: str) -> float:
    return median(seconds[name] / seconds[base] for seconds in measured)


def measure_masks(bench: Bench, batch: int, steps: int, rounds: int) -> list[dict[str, float]]:
    """Seconds of --steps steps with P in each of its places and without a mask."""
    torch.set_num_threads(1)
    # A turn is an epoch, the round that warms up the first one.
    table = bench.triplets.slice(0, batch * (1 + steps))
    cold = MaskConfig(cache_gib=0)  # P embeds every batch anew

    def inside() -> Embedder:
        return InsideEmbedder(MaskModel(cold, bench.device))

    masks: dict[str, tuple[MaskConfig | None, Callable[[], Embedder] | None]] = {
        "no mask": (None, None),
        CACHED: (MaskConfig(), inside),
        ACTOR: (cold, lambda: ActorEmbedder(cold, threads=1)),
        INSIDE: (cold, inside),
    }

    def case(mask: MaskConfig | None, embedder: Callable[[], Embedder] | None) -> Callable[[], float]:
        epochs = rounds + 2  # one more, so that the last turn asks ahead as the others do
        config = bench.config(mask=mask, global_batch=batch, epochs=epochs)
        training = start(config, table, bench.device, embedder)

        def turn() -> float:
            next(training)
            return seconds_of(training, steps)

        return turn

    return take_turns({name: case(*how) for name, how in masks.items()}, rounds)


def compare_masks(bench: Bench, batch: int, steps: int, rounds: int) -> None:
    """Print what a step takes with P in each of its places, over one without a mask."""
    import ray

    with start_ray():
        # In a worker of Ray's, as every training: P's actor shares that worker's GPU.
        measure = ray.remote(num_cpus=0, num_gpus=int(bench.gpu))(measure_masks)
        measured = ray.get(measure.remote(bench, batch, steps, rounds))
    without_s = median(seconds["no mask"] for seconds in measured) / steps
    print(f"step of {batch} triplets without mask: {without_s:.3f} s; {rounds} rounds of {steps} steps")
    for name, target in TARGETS.items():
        print(f"    {name} / no mask: {ratio(measured, name, 'no mask'):.3f}{target}", flush=True)


def cache_configs(bench: Bench, micro: int, rounds: int) -> dict[str, TrainConfig]:
    """Small batches, large ones through GradCache and large ones without it; as many triplets in a step."""
    shared = {"mask": None, "steps": rounds + 1}
    large = {**shared, "global_batch": TIMES * micro}
    return {
        "small": bench.config(**shared, global_batch=micro, accumulate=TIMES),
        "cached": bench.config(**large, micro_batch=micro, grad_cache=True),
        "large": bench.config(**large),
    }


def compare_grad_cache(bench: Bench, micro: int, rounds: int) -> None:
    """Print what GradCache costs in time and saves in memory."""
    peaks = {name: peak_in_process(name, micro) for name in ("small", "cached", "large")}
    configs = cache_configs(bench, micro, rounds)

    def case(name: str) -> Callable[[], float]:
        training = start(configs[name], bench.triplets, bench.device, None)
        return lambda: seconds_of(training, 1)

    measured = take_turns({name: case(name) for name in ("small", "cached")}, rounds)
    print(
        f"GradCache of {TIMES} x {micro} triplets / {TIMES} batches of {micro} accumulated, {rounds} rounds:"
    )
    print(f"    {ratio(measured, 'cached', 'small'):.3f} times as long per triplet; target at most 1.5")
    print(f"peak memory above that of batches of {micro} ({peaks['small']:.0f} MiB):")
    for name, what in (("cached", "through GradCache"), ("large", "without it")):
        print(f"    {TIMES} x {micro} {what}: {peaks[name] - peaks['small']:+.0f} MiB")


def peak_in_process(name: str, micro: int) -> float:
    """Peak memory in MiB of two steps in a process of their own."""
    command = [sys.executable, *sys.argv, "--peak-of", name, "--micro-batch", str(micro)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def peak_mib(bench: Bench, name: str, micro: int) -> float:
    training = start(cache_configs(bench, micro, rounds=1)[name], bench.triplets, bench.device, None)
    seconds_of(training, 2)
    if bench.gpu:
        return torch.cuda.max_memory_allocated() / 2**20
    # Not getrusage, whose peak includes that of the process which started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, help="of MiniLM; all unless given")
    parser.add_argument("--batch", type=int, default=64, help="triplets in a step with or without mask")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--micro-batch", type=int, default=16, help="triplets of GradCache at once")
    Bench.add_options(parser)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench.of(given)
    if given.peak_of:
        print(peak_mib(bench, given.peak_of, given.micro_batch))
        return
    compare_masks(bench, given.batch, given.steps, given.rounds)
    compare_grad_cache(bench, given.micro_batch, given.rounds)


if __name__ == "__main__":
    main()
