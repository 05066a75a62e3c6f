"""Ranges of row ids."""

from typing import NamedTuple

import pyarrow.compute as pc


class IdSpan(NamedTuple):
    """The range of row ids from `first` to `last`, both included."""

    first: str
    last: str

    def __str__(self) -> str:
        """Return the range for messages."""
        return f"rows {self.first} to {self.last}"

    def meets(self, other: "IdSpan") -> bool:
        """Return True if the two ranges overlap."""
        return self.first <= other.last and other.first <= self.last

    def holds(self, other: "IdSpan") -> bool:
        """Return True if all ids of the other range are in this one."""
        return self.first <= other.first and other.last <= self.last

    @property
    def rows(self) -> pc.Expression:
        """Return a filter for the rows whose `row_id` lies in the range."""
        return (pc.field("row_id") >= self.first) & (pc.field("row_id") <= self.last)
