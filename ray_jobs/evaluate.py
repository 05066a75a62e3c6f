"""Job: an encoder -> its figures, before and after training.

python -m ray_jobs.evaluate configs/demo.yaml --set seed=7
"""

import sys

from multicsr.job import job_main

if __name__ == "__main__":
    sys.exit(job_main("evaluate"))
