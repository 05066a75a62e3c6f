"""Jobs on Kubernetes, as RayJobs of the KubeRay operator.

manifests.py  the RayJob of a job, made from the rendered overlay
jobs.py       submit, list, stop
follow.py     show the log of a job while it runs
causes.py     reasons why a job waits: conditions and warnings of its objects
api.py        calls of the API server, with retries
objects.py    the objects in its answers
errors.py     its errors as one line with the remedy
transport.py  failures of TLS and networks as one line with the remedy
client.py     the only file that imports the client library
"""
