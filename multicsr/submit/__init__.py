"""A job on a cluster: what travels, under which name, who runs it, what became of it.

parcel.py      a configuration and its data files, as they travel
names.py       the name of a job: the same work has the same name
jobs.py        a job as a cluster tells of it, and what a cluster must be able to do
send.py        the same name and configuration twice runs once
places.py      from the words of a command (words.py) to a cluster and to what is sent there
checks.py      what is looked at before anything is created
retry.py       servers that are busy or away
Kubernetes     manifests.py, kube.py, kube_follow.py, kube_api.py and its kube_objects.py; kube_door.py alone
               imports the client library
Ray            ray_jobs.py, ray_send.py; ray_door.py alone imports Ray's client of the Jobs API
"""
