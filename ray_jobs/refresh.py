"""Job: a night - what is new at the source -> the next version of the store.

python -m ray_jobs.refresh configs/nightly.yaml
"""

import sys

from multicsr.job import job_main

if __name__ == "__main__":
    sys.exit(job_main("refresh"))
