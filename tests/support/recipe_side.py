"""The run that tests/recipes/test_kills.py kills: `python -m tests.support.recipe_side CONFIG`.

It ends with the encoder. Every shard of the fake LLM takes a while, so that there is a moment to kill it.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from multicsr.cli.entrypoint import guarded
from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.observability.progress import LineProgress
from multicsr.stages.generate import writing
from multicsr.stages.generate.batches import WrittenRows
from multicsr.stages.generate.triplets import TripletStage
from multicsr.storage.store import FileEntry, Store

_S_PER_SHARD = 0.5


class SlowStage(TripletStage):
    """A stage that waits before each shard."""

    def pieces(self, sentences: pa.Table, hypotheses: pa.Table | None = None) -> Iterator[WrittenRows]:
        time.sleep(_S_PER_SHARD)
        yield from super().pieces(sentences, hypotheses)


def load_slow_stage(config: Config, store: Store, shown: Sequence[FileEntry]) -> TripletStage:
    """Stand in for `load_stage` of writing."""
    del store, shown
    return SlowStage(config)


def main() -> int:
    from multicsr.pipeline import full_run

    writing.load_stage = load_slow_stage
    config = load_config(Path(sys.argv[1]))

    def call() -> None:
        full_run.run(config, LineProgress(), until="train")

    return guarded(call, debug=False)


if __name__ == "__main__":
    # Under its own name, so that workers find the stage by it.
    from tests.support import recipe_side

    sys.exit(recipe_side.main())
