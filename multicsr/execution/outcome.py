"""Errors that travel between processes as values: Ray would wrap an exception in its own tracebacks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from multicsr.errors import MulticsrError

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """The result of work in another process, or the expected error that ended the work."""

    result: T | MulticsrError

    @classmethod
    def of(cls, work: Callable[[], T]) -> "Outcome[T]":
        """Return the outcome of a call; exceptions other than MulticsrError are raised."""
        try:
            return cls(work())
        except MulticsrError as error:
            return cls(error)

    def take(self) -> T:
        """Return the result.

        Raises:
            MulticsrError: the error that came instead.
        """
        if isinstance(self.result, MulticsrError):
            raise self.result
        return self.result
