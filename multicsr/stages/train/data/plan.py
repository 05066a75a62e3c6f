"""The plan of a run: the rows of every batch, which every worker knows before the first step."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.hashing import hash_64
from multicsr.stages.train import distributed
from multicsr.stages.train.data.index import Index
from multicsr.stages.train.data.sampler import epoch_batches
from multicsr.stages.train.data.source import RowNumbers


@dataclass(frozen=True)
class Plan:
    """A sequence of B global batches of G rows; `accumulate` batches make one optimizer step."""

    row_BG: RowNumbers
    """Row numbers of each batch."""
    epoch_B: NDArray[np.int64]
    """Epoch of each batch, counted from 1."""
    accumulate: int
    """Number of batches in one optimizer step."""

    @property
    def steps(self) -> int:
        """Return the number of optimizer steps."""
        return len(self.row_BG) // self.accumulate

    def own_epochs(self, steps_done: int) -> list[list[RowNumbers]]:
        """Return this worker's rows of the remaining batches, grouped by epoch.

        Args:
            steps_done: number of optimizer steps that are done already.

        Returns:
            For each epoch, the row numbers of each of its batches.
        """
        own = distributed.own_rows(self.row_BG.shape[1])
        first = steps_done * self.accumulate
        epochs = sorted(set(self.epoch_B[first:].tolist()))
        return [[*self.row_BG[first:][self.epoch_B[first:] == epoch][:, own]] for epoch in epochs]


def make_plan(config: TrainConfig, index: Index, seed: int) -> Plan:
    """Return all batches of the run. Batches at the end that do not fill a step are left out.

    Args:
        config: the settings of the training.
        index: the index of all rows.
        seed: the seed of the run, which decides the order of the rows.

    Raises:
        ConfigError: the triplets do not fill a batch, or the batches do not fill a step.
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


def chunk_seed(seed: int, batch: int, first_row: int) -> int:
    """Return the seed of a chunk's dropout.

    It depends on the arguments alone, so the dropout is the same on any worker, in the second pass of
    GradCache and after a restart.

    Args:
        seed: the seed of the run.
        batch: number of the global batch.
        first_row: first row of the chunk in the global batch.
    """
    return hash_64(f"{seed}:{batch}:{first_row}") >> 1
