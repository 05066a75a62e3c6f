"""Job: an encoder -> its metrics before and after training.

python -m ray_jobs.evaluate configs/demo.yaml --set seed=7
"""

import sys

from multicsr.cli.entrypoint import job_main

if __name__ == "__main__":
    sys.exit(job_main("evaluate"))
