"""Job: refresh run; changes of the source -> the next version of the store.

python -m ray_jobs.refresh configs/nightly.yaml
"""

from functools import partial

from multicsr.cli.entrypoint import job_main
from multicsr.cli.process import run_process

if __name__ == "__main__":
    run_process(partial(job_main, "refresh"))
