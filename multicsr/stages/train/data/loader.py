"""Batches that are ready to train on: planned rows, read and tokenised in advance in a thread."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from multicsr.config import TrainConfig
from multicsr.models.text_input import TokenIds
from multicsr.stages.train import distributed
from multicsr.stages.train.data.plan import Plan, chunk_seed
from multicsr.stages.train.data.source import OwnRows, RowNumbers, Source

T = TypeVar("T")
_BATCHES_AHEAD = 4
"""Number of batches that are prepared in advance."""


@dataclass(frozen=True)
class Chunk:
    """Rows that pass through the encoder together, with their own dropout."""

    sequences: list[TokenIds]
    """Token ids: sentence 1 of all rows, then sentence 2 of all rows, and so on."""
    num_rows: int
    seed: int
    """Seed of the dropout, from `chunk_seed`."""


@dataclass(frozen=True)
class Batch:
    """A global batch of G rows, with the texts of one worker's rows."""

    number: int
    """Number of the batch in the whole run, counted from 0."""
    row_G: RowNumbers
    """Row numbers of all workers."""
    own: OwnRows
    """Texts of this worker's rows."""
    chunks: list[Chunk]
    """Chunks of this worker's rows, in order."""


def feed(
    source: Source,
    plan: Plan,
    steps_done: int,
    tokenize: Callable[[Sequence[str]], list[TokenIds]],
    config: TrainConfig,
    seed: int,
) -> Iterator[Batch]:
    """Yield the batches of the remaining steps; `_BATCHES_AHEAD` of them are prepared in advance.

    Args:
        source: reads the sentences of planned rows.
        plan: all batches of the run.
        steps_done: number of optimizer steps that are done already; their batches are skipped.
        tokenize: returns the token ids of each sentence.
        config: the settings of the training.
        seed: the seed of the run, for the dropout.
    """
    first = steps_done * plan.accumulate
    rows = source(plan.own_epochs(steps_done))

    def make() -> Iterator[Batch]:
        """Yield the batches of the remaining steps, tokenised."""
        for number, own in enumerate(rows, start=first):
            tokens = [tokenize(texts) for texts in own.sentences]
            if len(tokens) == 1:  # SimCSE's augmentation is dropout: the same sentences are encoded twice
                tokens *= 2
            yield Batch(number, plan.row_BG[number], own, _chunks(tokens, config, seed, number))

    return _ahead(make(), _BATCHES_AHEAD)


def _chunks(tokens: list[list[TokenIds]], config: TrainConfig, seed: int, number: int) -> list[Chunk]:
    """Cut this worker's rows into chunks, at every multiple of `micro_batch` in the global batch.

    Args:
        tokens: S lists with the token ids of this worker's rows.
        config: the settings of the training.
        seed: the seed of the run.
        number: the number of the batch.
    """
    own = distributed.own_rows(config.global_batch)
    size = config.micro_batch or config.global_batch
    edges = [own.start, *(row for row in range(0, own.stop, size) if row > own.start), own.stop]
    return [
        Chunk(
            [ids for of_sentence in tokens for ids in of_sentence[start - own.start : end - own.start]],
            end - start,
            chunk_seed(seed, number, start),
        )
        for start, end in pairwise(edges)
    ]


def _ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """Yield the same items; `depth` of them are made in advance in a thread."""
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        coming = deque(thread.submit(next, items, None) for _ in range(depth))
        while (item := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
