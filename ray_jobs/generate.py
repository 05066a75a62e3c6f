"""Job: sentences -> triplets with the LLM's own scores.

python -m ray_jobs.generate configs/demo.yaml --set seed=7
"""

import sys

from multicsr.cli.entrypoint import job_main

if __name__ == "__main__":
    sys.exit(job_main("generate"))
