"""The job that tests/test_kill_jobs.py kills: `python -m tests.job_side CONFIG`, in a process of its own.

The engine is the fake one, but it takes its time, and every shard it begins leaves a file in the folder
JOB_LOG: its rows and the node it is on.
"""

import os
import sys
import time
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import ray

from multicsr.config_file import load_config
from multicsr.generate import run as generate_run
from multicsr.generate.stage import TripletStage, Written
from multicsr.job import guarded
from multicsr.progress import LineProgress

MS_PER_ROW = float(os.environ.get("MS_PER_ROW", "1"))


class SlowStage(TripletStage):
    """Says what it begins, and needs a while for it."""

    def __call__(self, sentences: pa.Table, hypotheses: pa.Table | None = None) -> Written:
        node = ray.get_runtime_context().get_node_id()
        Path(os.environ["JOB_LOG"], uuid4().hex).write_text(f"{sentences.num_rows} {node}")
        time.sleep(sentences.num_rows * MS_PER_ROW / 1000)
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
