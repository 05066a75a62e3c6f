"""The job that tests/pipeline/test_kill_jobs.py kills: `python -m tests.support.job_side CONFIG`.

The engine is the fake one, but it takes its time, and every shard it begins leaves a file that tells its rows
and the node it is on.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from uuid import uuid4

import pyarrow as pa
import ray

from multicsr.cli.entrypoint import guarded
from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.observability.progress import LineProgress
from multicsr.stages.generate import writing
from multicsr.stages.generate.batches import WrittenRows
from multicsr.stages.generate.triplets import TripletStage
from multicsr.storage.store import FileEntry, Store

_S_PER_ROW = 0.002


def begun(config: Config) -> Path:
    """The folder of those files: beside the sentences, because a bucket has no folders."""
    return Path(config.input.paths[0]).parent / f"{PurePosixPath(config.store).name}.begun"


class SlowStage(TripletStage):
    """Says what it begins, and needs a while for it."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._begun = begun(config)

    def pieces(self, sentences: pa.Table, hypotheses: pa.Table | None = None) -> Iterator[WrittenRows]:
        node = ray.get_runtime_context().get_node_id()
        (self._begun / uuid4().hex).write_text(f"{sentences.num_rows} {node}")
        time.sleep(sentences.num_rows * _S_PER_ROW)
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
        full_run.run(config, LineProgress(), until="curate")

    return guarded(call, debug=False)


if __name__ == "__main__":
    # Under its own name, so that workers find the stage by it.
    from tests.support import job_side

    sys.exit(job_side.main())
