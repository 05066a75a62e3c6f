"""What the mask costs a training step: a ratio from one run on this machine.

python benchmarks/training.py [--rows 1024] [--batch 128] [--rounds 8]
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from multicsr.config import MaskConfig, TrainConfig
from multicsr.evaluate import read_task
from multicsr.models import MINILM
from multicsr.train.encoder import Encoder, load_encoder
from multicsr.train.mask_model import load_mask_model, mask_embeddings
from multicsr.train.objective import Objective
from multicsr.train.sampler import epoch_batches
from multicsr.train.triplets import Triplets, read_triplets

DATA = Path(__file__).parents[1] / "multicsr/assets/demo/dev_triplets.tsv"


def read(num_rows: int, config: TrainConfig) -> Triplets:
    task = read_task(DATA)
    columns = zip(("text", "entailment", "contradiction"), task.columns(), strict=True)
    return read_triplets(pa.table({name: column[:num_rows] for name, column in columns}), config)


def step_s(objective: Objective, batch_N: np.ndarray) -> float:
    """Seconds of one forward and backward pass."""
    torch.manual_seed(0)
    started = time.perf_counter()
    objective(batch_N).loss.backward()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()

    masked = TrainConfig(mask=MaskConfig(sigma=0.9), global_batch=arguments.batch)
    plain = TrainConfig(mask=None, global_batch=arguments.batch)
    data = read(arguments.rows, masked)
    encoder = Encoder(load_encoder(MINILM, pooling="cls"), mlp_head=True).train()
    started = time.perf_counter()
    mask_TD = mask_embeddings(load_mask_model(MINILM, "cpu"), data.texts)
    embed_s = time.perf_counter() - started

    batch_N = epoch_batches(data.key_RS, arguments.batch, seed=0, epoch=0)[0]
    objectives = {
        "without mask": Objective(plain, data, encoder, None),
        "with mask": Objective(masked, data, encoder, mask_TD),
    }
    seconds: dict[str, list[float]] = {name: [] for name in objectives}
    for _ in range(arguments.rounds + 1):  # the first is warm-up; the two take turns
        for name, objective in objectives.items():
            seconds[name].append(step_s(objective, batch_N))
    median = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    for name, value in median.items():
        print(f"{name:<14} {value:.3f} s a step of {arguments.batch} triplets")
    print(f"ratio          {median['with mask'] / median['without mask']:.3f}")
    steps = embed_s / median["without mask"]
    print(
        f"P's vectors    {embed_s:.1f} s once for {len(data.texts):,} sentences: as long as {steps:.1f} steps"
    )


if __name__ == "__main__":
    main()
