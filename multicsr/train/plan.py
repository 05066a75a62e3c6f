"""Which rows train when: every batch of a run, known before the first step on every worker."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.manifest import fingerprint
from multicsr.train import world
from multicsr.train.index import Index
from multicsr.train.sampler import epoch_batches
from multicsr.train.source import RowNumbers

NO_RESULT = {
    "cpus_per_worker",
    "nodes",
    "gpus_per_worker",
    "workers",
    "min_workers",
    "grad_cache",
    "deepspeed",
    "checkpoint_every_s",
    "max_restarts",
    "tensorboard",
    "mlflow",
}
"""Settings of `train` that do not decide the model: a run may go on with others."""
NO_RESULT_OF_MASK = {"place", "cache_gib"}


@dataclass(frozen=True)
class Plan:
    """B global batches of G rows; `accumulate` of them are one optimizer step."""

    row_BG: RowNumbers
    epoch_B: NDArray[np.int64]
    """From 1."""
    accumulate: int

    @property
    def steps(self) -> int:
        return len(self.row_BG) // self.accumulate

    def own_epochs(self, steps_done: int) -> list[list[RowNumbers]]:
        """This worker's rows of the batches to come, by epoch."""
        own = world.own_rows(self.row_BG.shape[1])
        first = steps_done * self.accumulate
        epochs = sorted(set(self.epoch_B[first:].tolist()))
        return [[*self.row_BG[first:][self.epoch_B[first:] == epoch][:, own]] for epoch in epochs]


def make_plan(config: TrainConfig, index: Index, seed: int) -> Plan:
    """Every batch of the run. Batches at the end that do not fill a step are left out.

    Raises:
        ConfigError: the triplets do not fill a batch, or the batches not a step.
    """
    batches: list[NDArray[np.int64]] = []
    epoch_of: list[int] = []
    wanted = config.steps and config.steps * config.accumulate
    while len(epoch_of) < wanted if wanted else len(batches) < config.epochs:
        batches.append(epoch_batches(index.key_RS, config.global_batch, seed, len(batches)))
        epoch_of += [len(batches)] * len(batches[-1])
    kept = wanted or len(epoch_of) // config.accumulate * config.accumulate
    if not kept:
        raise ConfigError(
            f"train.accumulate: a step takes {config.accumulate} batches, and there are {len(epoch_of)}"
        )
    return Plan(np.concatenate(batches)[:kept], np.asarray(epoch_of)[:kept], config.accumulate)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Rate of step `step` (from 0): linear up over the warm-up, then by `config.schedule`."""
    warmup_steps = round(config.warmup * steps)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    left = (steps - step) / (steps - warmup_steps)
    shape = {"constant": 1.0, "linear": left, "cosine": (1 - np.cos(np.pi * left)) / 2}
    return config.learning_rate * float(shape[config.schedule])


def chunk_seed(seed: int, batch: int, first_row: int) -> int:
    """Of the dropout of the rows from `first_row` of a global batch: a function of these alone, so that it
    is the same on any worker, in a second pass and after a restart."""
    key = f"{seed}:{batch}:{first_row}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def identity(config: TrainConfig, index: Index, seed: int) -> str:
    """Changes with whatever decides the model: a checkpoint of another run is not continued."""
    settings = deciding_settings(config)
    digest = hashlib.blake2b(index.row_R.tobytes())
    digest.update(index.sentence_T[index.text_RS].tobytes())
    return fingerprint({"train": settings, "seed": seed, "triplets": digest.hexdigest()})


def deciding_settings(config: TrainConfig) -> dict[str, JsonValue]:
    """The settings of `train` that decide the model."""
    return config.model_dump(
        mode="json", exclude={**dict.fromkeys(NO_RESULT, True), "mask": NO_RESULT_OF_MASK}
    )


def row_names(row_ids: Sequence[str]) -> str:
    """The first few row ids, for a message."""
    more = f" and {len(row_ids) - 3} more" if len(row_ids) > 3 else ""
    return ", ".join(row_ids[:3]) + more
