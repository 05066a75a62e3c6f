"""What a job on a Ray cluster takes along: its configuration and data files lie in the store, under `jobs/`.

Credentials do not travel: the cluster has its own.
"""

from pathlib import PurePath

import yaml

from multicsr.errors import ConfigError
from multicsr.resources import JOB_LABEL
from multicsr.store import Store
from multicsr.submit.jobs import ATTEMPT, CONFIG, RUN
from multicsr.submit.names import Attempt
from multicsr.submit.parcel import CONFIG_FILE, Parcel, values
from multicsr.submit.ray_door import Door
from multicsr.submit.ray_jobs import RayCluster
from multicsr.submit.retry import Fault, patiently

_SHELL = " $\"'`;|&<>()*?[]\\\n"


class RaySender:
    """Submits a job."""

    def __init__(self, door: Door, cluster: RayCluster, parcel: Parcel) -> None:
        self._door, self._cluster, self._parcel = door, cluster, parcel

    def create(self, attempt: Attempt) -> bool:
        """Put the configuration into the store, and the job on the cluster; False: its name is taken."""
        parcel = self._parcel
        send_files(parcel, attempt)
        words, facts = entrypoint(parcel, attempt), marks(parcel, attempt)

        def once() -> bool:
            try:
                self._door.submit(attempt.name, words, facts, variables(parcel))
            except Fault:
                # The name is taken: by others, or by our own request, whose answer was lost.
                found = self._cluster.find(attempt.name)
                if found is None:
                    raise
                return found.run == attempt.run and found.digest == parcel.digest
            return True

        try:
            return patiently(once)
        except Fault as fault:
            raise self._cluster.told(fault) from fault

    def complete(self, name: str) -> None:
        """Nothing is missing."""


def as_yaml(parcel: Parcel, attempt: Attempt) -> str:
    """What would be sent, for the user to read."""
    there = Store.of(parcel.config).uri(folder(attempt))
    job = {
        "submission_id": attempt.name,
        "entrypoint": entrypoint(parcel, attempt),
        "metadata": marks(parcel, attempt),
        "runtime_env": {"env_vars": variables(parcel)},
    }
    return f"{yaml.safe_dump(job, sort_keys=False)}---\n# {there}/{CONFIG_FILE}\n{parcel.text(there)}"


def folder(attempt: Attempt) -> str:
    """In the store; one for all attempts, which read the same."""
    return f"jobs/{attempt.run}"


def entrypoint(parcel: Parcel, attempt: Attempt) -> str:
    """What the cluster runs: plain words, because they go through a shell."""
    return (
        f"python -m ray_jobs.{parcel.job} {Store.of(parcel.config).uri(f'{folder(attempt)}/{CONFIG_FILE}')}"
    )


def send_files(parcel: Parcel, attempt: Attempt) -> None:
    """Put what the job reads into the store."""
    store, there = Store.of(parcel.config), folder(attempt)
    for name, data in parcel.files.items():
        store.write_bytes(f"{there}/{name}", data)
    store.write_text(f"{there}/{CONFIG_FILE}", parcel.text(store.uri(there)))


def marks(parcel: Parcel, attempt: Attempt) -> dict[str, str]:
    """Metadata by which the job is known again."""
    numbered = {RUN: attempt.run, ATTEMPT: str(attempt.number)}
    return {JOB_LABEL: parcel.job, CONFIG: parcel.digest, **numbered}


def variables(parcel: Parcel) -> dict[str, str]:
    """How the job reaches the bucket in which its configuration is."""
    s3 = parcel.config.s3
    given = {"AWS_ENDPOINT_URL": s3.endpoint, "AWS_DEFAULT_REGION": s3.region}
    return {name: value for name, value in given.items() if value} if "s3://" in parcel.config.store else {}


def require_shared_places(parcel: Parcel) -> None:
    """Every node must find the same under a name.

    Raises:
        ConfigError: the store or an input is a relative path, or has characters that a shell would change.
    """
    for setting in ("store", "input.paths"):
        for place in values(parcel.config, setting):
            if "://" not in place and not PurePath(place).is_absolute():
                raise ConfigError(
                    f"{setting}: {place} is a directory of this machine; give s3://bucket/prefix, or the "
                    "absolute path of a directory that all nodes mount"
                )
    if any(letter in parcel.config.store for letter in _SHELL):
        raise ConfigError(f"store: {parcel.config.store} goes through a shell; take a name of plain letters")
