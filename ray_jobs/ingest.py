"""Job: raw text -> sentences.

python -m ray_jobs.ingest configs/demo.yaml --set seed=7
"""

import sys

from multicsr.cli.entrypoint import job_main

if __name__ == "__main__":
    sys.exit(job_main("ingest"))
