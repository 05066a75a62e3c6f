"""Records of the errors that ended workers, kept in the store for the workers that Ray starts next.

Ray restarts all workers after any exception. An error that would occur again must end the run instead: an
error of this package ends it at once, an error of another library when it occurs twice at the same step.
"""

import re

from pydantic import TypeAdapter

from multicsr.artifacts import FileRecord
from multicsr.errors import ConfigError, DamagedFileError, MulticsrError, RunError, SchemaError
from multicsr.messages.foreign_errors import explain_error
from multicsr.stages.train.checkpoint_folder import step_of
from multicsr.storage.store import Store

_ADDRESS = re.compile(r"0x[0-9a-f]+")
"""Memory address of an object in a message. It differs from process to process, so it is replaced."""


class WorkerFailure(FileRecord):
    """An exception as plain data, because a pickled exception would have to be unpickled."""

    kind: str
    """Name of the exception's class."""
    message: str
    """The message as a user sees it."""
    step: int | None = None
    """Number of optimizer steps done before the exception."""


_failure = TypeAdapter(WorkerFailure)


class Failures:
    """The failures of one training."""

    def __init__(self, store: Store, key: str) -> None:
        """Open the records of one training.

        Args:
            store: the store.
            key: fingerprint of the model that the training makes.
        """
        self._store, self._training = store, f"training/{key}"
        self._folder = f"{self._training}/failures"

    def clear(self) -> None:
        """Delete all records, when a new command begins."""
        self._store.delete(self._folder)

    def final(self) -> MulticsrError | None:
        """Return the error that ends the run; None if no worker recorded one."""
        failure = self._read(f"{self._folder}/final.json")
        if failure is None:
            return None
        kind = ConfigError if failure.kind == ConfigError.__name__ else RunError
        return kind(failure.message)

    def end_run(self, error: MulticsrError) -> None:
        """FileRecord that `error` ends the run, for any workers that Ray starts next."""
        failure = WorkerFailure(kind=type(error).__name__, message=str(error))
        self._store.write_json(f"{self._folder}/final.json", failure)

    def note(self, error: Exception, rank: int, step: int) -> RunError | None:
        """FileRecord an error of another library.

        Args:
            error: the exception.
            rank: number of the worker that raised it.
            step: number of optimizer steps done before it.

        Returns:
            The error that ends the run, if this worker recorded the same error at the same step just before;
            otherwise None.
        """
        name = f"{self._folder}/worker-{rank}.json"
        message = _ADDRESS.sub("0x...", explain_error(error))
        failure, before = (
            WorkerFailure(kind=type(error).__name__, message=message, step=step),
            self._read(name),
        )
        self._store.write_json(name, failure)
        if failure != before:
            return None
        return RunError(
            f"train: the same error came twice after step {step}, so another try would not help: {message}; "
            f"{self.advice()}"
        )

    def advice(self) -> str:
        """Return a message for users: from which checkpoint, if any, the next run resumes."""
        names = self._store.names(self._training)
        steps = [step for name in names if (step := step_of(name)) is not None]
        if not steps:
            return "there is no checkpoint yet: the next run starts anew"
        return f"the checkpoint after step {max(steps)} is kept: the next run goes on from it"

    def _read(self, name: str) -> WorkerFailure | None:
        """Return a record; None if it is missing or damaged."""
        try:
            return self._store.read_json(name, _failure, "") if self._store.exists(name) else None
        except (DamagedFileError, SchemaError):
            return None  # A lost record costs one more attempt, nothing else.
