"""Submission of jobs: the files that are sent, the name, the attempts, and the state of a job.

bundle.py     a configuration and its data files, as they are sent
names.py      the name of a job: the same work has the same name
job.py        a job as a cluster reports it, and what a cluster must be able to do
submit.py     runs the same name and configuration once, however often it is submitted
options.py    options of the commands; `deploy/targets.py` turns them into a cluster
preflight.py  checks before anything is created
retry.py      repeats calls to servers that are busy or unreachable
listing.py    jobs as a table, and as records for JSON
"""
