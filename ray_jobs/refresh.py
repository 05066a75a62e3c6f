"""Job: refresh run; changes of the source -> the next version of the store.

python -m ray_jobs.refresh configs/nightly.yaml
"""

import sys

from multicsr.cli.entrypoint import job_main

if __name__ == "__main__":
    sys.exit(job_main("refresh"))
