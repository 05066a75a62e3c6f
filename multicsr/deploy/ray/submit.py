"""Submission to a Ray cluster. The configuration and data files of a job lie in the store, under `jobs/`.

They lie under the digest of the bundle: whoever submits other work under the same name changes nothing of it.
Credentials are not sent: the cluster has its own.
"""

from pathlib import PurePath

import yaml

from multicsr import hashing
from multicsr.deploy.ray.client import JobsApiClient
from multicsr.deploy.ray.jobs import RayClusterTarget
from multicsr.deploy.resources import JOB_LABEL
from multicsr.deploy.submit.bundle import CONFIG_FILE, Bundle, values
from multicsr.deploy.submit.job import ATTEMPT, CONFIG, RUN
from multicsr.deploy.submit.names import Attempt
from multicsr.deploy.submit.retry import ApiError, with_retries
from multicsr.errors import ConfigError
from multicsr.storage.store import Store

_SHELL = " $\"'`;|&<>()*?[]\\\n"
"""Characters that a shell would change or interpret."""


class RaySender:
    """Submitter of one job: an implementation of `Sender`."""

    def __init__(self, client: JobsApiClient, cluster: RayClusterTarget, bundle: Bundle) -> None:
        self._client, self._cluster, self._bundle = client, cluster, bundle

    def create(self, attempt: Attempt) -> bool:
        """Write the configuration to the store and submit the job to the cluster.

        Returns:
            False if the name of the job is taken.

        Raises:
            RunError: the cluster cannot be reached or does not accept the job.
        """
        bundle = self._bundle
        send_files(bundle, attempt)
        words, facts = entrypoint(bundle, attempt), marks(bundle, attempt)

        def once() -> bool:
            try:
                self._client.submit(attempt.name, words, facts, variables(bundle))
            except ApiError:
                # The name may be taken by another job, or by our own request, whose answer was lost.
                found = self._cluster.find(attempt.name)
                if found is None:
                    raise
                return found.run == attempt.run and found.digest == bundle.digest
            return True

        try:
            return with_retries(once)
        except ApiError as fault:
            raise self._cluster.translated(fault) from fault

    def complete(self, name: str) -> None:
        """Do nothing: `create` has already created all that the job needs."""


def as_yaml(bundle: Bundle, attempt: Attempt) -> str:
    """Return as YAML what would be sent, for the user to read."""
    there = Store.of(bundle.config).uri(folder(bundle, attempt))
    job = {
        "submission_id": attempt.name,
        "entrypoint": entrypoint(bundle, attempt),
        "metadata": marks(bundle, attempt),
        "runtime_env": {"env_vars": variables(bundle)},
    }
    return f"{yaml.safe_dump(job, sort_keys=False)}---\n# {there}/{CONFIG_FILE}\n{bundle.text(there)}"


def folder(bundle: Bundle, attempt: Attempt) -> str:
    """Return the folder in the store for the files of a job; all attempts read the same files."""
    return f"jobs/{attempt.run}/{bundle.digest}"


def entrypoint(bundle: Bundle, attempt: Attempt) -> str:
    """Return the command that the cluster runs. It needs no quoting, because a shell interprets it.

    It holds the checksum of the configuration: who may write the store could otherwise send the job, and the
    key of its endpoint, to another place.
    """
    there = Store.of(bundle.config).uri(folder(bundle, attempt))
    checksum = hashing.checksum(bundle.text(there).encode())
    return f"python -m ray_jobs.{bundle.job} {there}/{CONFIG_FILE} --checksum {checksum}"


def send_files(bundle: Bundle, attempt: Attempt) -> None:
    """Write the configuration and the data files of the job to the store."""
    store, there = Store.of(bundle.config), folder(bundle, attempt)
    for name, data in bundle.files.items():
        store.write_bytes(f"{there}/{name}", data)
    store.write_text(f"{there}/{CONFIG_FILE}", bundle.text(store.uri(there)))


def marks(bundle: Bundle, attempt: Attempt) -> dict[str, str]:
    """Return the metadata by which the job is recognised later."""
    numbered = {RUN: attempt.run, ATTEMPT: str(attempt.number)}
    return {JOB_LABEL: bundle.job, CONFIG: bundle.digest, **numbered}


def variables(bundle: Bundle) -> dict[str, str]:
    """Return the environment variables with which the job reaches the bucket that holds its configuration.

    There are none if the store is not a bucket.
    """
    s3 = bundle.config.s3
    given = {"AWS_ENDPOINT_URL": s3.endpoint, "AWS_DEFAULT_REGION": s3.region}
    return {name: value for name, value in given.items() if value} if "s3://" in bundle.config.store else {}


def require_shared_paths(bundle: Bundle) -> None:
    """Raise if the store or an input is not at the same place for every node.

    Raises:
        ConfigError: the store or an input is a relative path, or has characters that a shell would change.
    """
    for setting in ("store", "input.paths"):
        for place in values(bundle.config, setting):
            if "://" not in place and not PurePath(place).is_absolute():
                raise ConfigError(
                    f"{setting}: {place} is a directory of this machine; give s3://bucket/prefix, or the "
                    "absolute path of a directory that all nodes mount"
                )
    if any(letter in bundle.config.store for letter in _SHELL):
        raise ConfigError(f"store: {bundle.config.store} goes through a shell; take a name of plain letters")
