"""What a faulty proxy can do to a request."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What can happen to a request. After those marked (done) the server has done the work all the same."""

    INTERNAL_ERROR = "internal error"
    """500 InternalError, the request was not passed on."""
    SLOW_DOWN = "slow down"
    """503 SlowDown, not passed on."""
    DROP_BEFORE = "drop before"
    """The connection is reset, not passed on."""
    DROP_AFTER = "drop after"
    """(done) The connection is closed without an answer."""
    DROP_MIDWAY = "drop midway"
    """(done) Closed half-way through the answer's body; if it has none, reset half-way through its head."""
    HANG_BEFORE = "hang before"
    """No answer for `hang_s` or until the client gives up, then closed; not passed on."""
    HANG_AFTER = "hang after"
    """(done) The same."""
    FORBIDDEN = "forbidden"
    """403 AccessDenied, not passed on."""


ERRORS = {
    Fault.INTERNAL_ERROR: (500, "InternalError", "We encountered an internal error. Please try again."),
    Fault.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    Fault.FORBIDDEN: (403, "AccessDenied", "Access Denied"),
}
"""Status, code and message of the faults that are answers."""


@dataclass(frozen=True)
class Seen:
    """A request as the client sent it, and what was done to it. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    fault: Fault | None
