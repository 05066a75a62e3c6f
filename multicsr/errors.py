"""The two ways a job can end badly, each with its exit code.

Bad rows are data (they become rejects with a reason); these are for broken worlds.
"""


class MulticsrError(Exception):
    """One clear line: what is wrong, the setting it comes from, the remedy."""

    exit_code = 1


class ConfigError(MulticsrError):
    """The user's configuration cannot work. Exit code 2."""

    exit_code = 2


class RunError(MulticsrError):
    """The configuration is fine but the run cannot go on. Exit code 1."""

    exit_code = 1


class WorkerLost(RunError):
    """This process can do no more work, but another one may: in a pool it ends and is replaced."""
