"""From planned rows to batches that are ready to train on: read and tokenised ahead, in a thread."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from multicsr.config import TrainConfig
from multicsr.train import world
from multicsr.train.encoder import TokenIds
from multicsr.train.plan import Plan, chunk_seed
from multicsr.train.source import OwnRows, RowNumbers, Source

T = TypeVar("T")
_BATCHES_AHEAD = 4


@dataclass(frozen=True)
class Chunk:
    """Rows that go through the encoder together, with dropout of their own."""

    sequences: list[TokenIds]
    """Sentence 1 of all rows, then sentence 2 of all, and so on."""
    num_rows: int
    seed: int


@dataclass(frozen=True)
class Batch:
    """A global batch of G rows as one worker sees it."""

    number: int
    """From 0, over the whole run."""
    row_G: RowNumbers
    """The rows of all workers."""
    own: OwnRows
    chunks: list[Chunk]
    """This worker's rows, in order."""


def feed(
    source: Source,
    plan: Plan,
    steps_done: int,
    tokenize: Callable[[Sequence[str]], list[TokenIds]],
    config: TrainConfig,
    seed: int,
) -> Iterator[Batch]:
    """The batches of the steps to come, some of them ready before they are asked for."""
    first = steps_done * plan.accumulate
    rows = source(plan.own_epochs(steps_done))

    def make() -> Iterator[Batch]:
        for number, own in enumerate(rows, start=first):
            tokens = [tokenize(texts) for texts in own.sentences]
            if len(tokens) == 1:  # SimCSE's augmentation is dropout: the same sentences go through twice
                tokens *= 2
            yield Batch(number, plan.row_BG[number], own, _chunks(tokens, config, seed, number))

    return _ahead(make(), _BATCHES_AHEAD)


def _chunks(tokens: list[list[TokenIds]], config: TrainConfig, seed: int, number: int) -> list[Chunk]:
    """Cut this worker's rows at every multiple of `micro_batch` in the global batch."""
    own = world.own_rows(config.global_batch)
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
    """The same items, `depth` of them made in advance in a thread."""
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        coming = deque(thread.submit(next, items, None) for _ in range(depth))
        while (item := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
