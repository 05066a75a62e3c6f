"""Job: raw text -> sentences.

python -m ray_jobs.ingest configs/demo.yaml --set seed=7
"""

from functools import partial

from multicsr.cli.entrypoint import job_main
from multicsr.cli.process import run_process

if __name__ == "__main__":
    run_process(partial(job_main, "ingest"))
