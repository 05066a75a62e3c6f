"""The job that tests/test_kill_jobs.py kills: `python -m tests.job_side CONFIG`, in a process of its own.

The engine is the fake one, but it takes its time, and every shard it begins leaves a file that tells its rows
and the node it is on.
"""

import sys
import time
from pathlib import Path, PurePosixPath
from uuid import uuid4

import pyarrow as pa
import ray

from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.generate import run as generate_run
from multicsr.generate.stage import TripletStage, Written
from multicsr.job import guarded
from multicsr.progress import LineProgress

_S_PER_ROW = 0.002


def begun(config: Config) -> Path:
    """The folder of those files: beside the sentences, because a bucket has no folders."""
    return Path(config.input.paths[0]).parent / f"{PurePosixPath(config.store).name}.begun"


class SlowStage(TripletStage):
    """Says what it begins, and needs a while for it."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._begun = begun(config)

    def __call__(self, sentences: pa.Table, hypotheses: pa.Table | None = None) -> Written:
        node = ray.get_runtime_context().get_node_id()
        (self._begun / uuid4().hex).write_text(f"{sentences.num_rows} {node}")
        time.sleep(sentences.num_rows * _S_PER_ROW)
        return super().__call__(sentences, hypotheses)


def main() -> int:
    from multicsr import pipeline

    generate_run.TripletStage = SlowStage  # type: ignore[misc]
    config = load_config(Path(sys.argv[1]))

    def call() -> None:
        pipeline.run(config, LineProgress(), until="curate")

    return guarded(call, debug=False)


if __name__ == "__main__":
    # Under its own name, so that workers find the stage by it.
    from tests import job_side

    sys.exit(job_side.main())
