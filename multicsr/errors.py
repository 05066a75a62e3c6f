"""Exceptions that end a job, each with its exit code.

Bad rows are not errors: they become rejects with a reason.
"""


class MulticsrError(Exception):
    """An error for the user. Its message is one line: the problem, the setting that causes it, the remedy.

    If there are several problems, `args` contains one such line for each.
    """

    exit_code = 1
    """Exit code of a command that the error ends."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class ConfigError(MulticsrError):
    """A configuration that cannot work. Exit code 2."""

    exit_code = 2


class RunError(MulticsrError):
    """A run that cannot continue although its configuration is valid. Exit code 1."""

    exit_code = 1


class NothingKept(RunError):
    """Thresholds or rules that leave no row to train on."""


class BudgetSpent(RunError):
    """A run that has spent what it may cost. All that it has paid for is kept."""


class WorkerLost(RunError):
    """A process that can do no more work, although another one can. In a pool it is ended and replaced."""


class DamagedFileError(RunError):
    """A file of the store whose bytes differ from those that were written."""


class MissingFileError(DamagedFileError):
    """A file of the store that does not exist."""


class SchemaError(RunError):
    """A file of the store that another version of this package wrote. It is never deleted or replaced."""
