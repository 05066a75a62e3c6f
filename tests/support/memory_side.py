"""A job on a Ray of its own, in which one sentence uses up the memory.

`python -m tests.support.memory_side CONFIG`. Ray's memory monitor is told by the environment (see
tests/execution/test_memory.py) to end workers long before the machine's memory is used up.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pyarrow as pa

from multicsr.cli.entrypoint import guarded
from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.observability.progress import LineProgress
from multicsr.pipeline import full_run
from multicsr.stages.generate import writing
from multicsr.stages.generate.batches import WrittenRows
from multicsr.stages.generate.triplets import TripletStage
from multicsr.storage.store import FileEntry, Store

HUNGRY = "This sentence needs more memory than there is."
_PIECE_BYTES = 64 * 2**20
_LEFT_BYTES = 2 * 2**30
"""Memory of the machine that is never taken, whatever Ray does."""


class HungryStage(TripletStage):
    """A stage that takes memory without end for one sentence."""

    def pieces(self, sentences: pa.Table, hypotheses: pa.Table | None = None) -> Iterator[WrittenRows]:
        if HUNGRY in sentences["text"].to_pylist():
            taken = []
            while psutil.virtual_memory().available > _LEFT_BYTES:
                taken.append(bytearray(b"x") * _PIECE_BYTES)
        yield from super().pieces(sentences, hypotheses)


def load_hungry_stage(config: Config, store: Store, shown: Sequence[FileEntry]) -> TripletStage:
    """Stand in for `load_stage` of writing."""
    del store, shown
    return HungryStage(config)


def main() -> int:
    writing.load_stage = load_hungry_stage
    config = load_config(Path(sys.argv[1]))

    def call() -> None:
        full_run.run(config, LineProgress(), until="curate")

    return guarded(call, debug=False, command="multicsr run")


if __name__ == "__main__":
    # Under its own name, so that workers find the stage by it.
    from tests.support import memory_side

    sys.exit(memory_side.main())
