"""Errors of a request, in OpenAI's form."""

from collections.abc import Mapping

from pydantic import JsonValue

from multicsr.llm.base import Rejection
from multicsr.rows import Reason

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
"""Type of an error by its HTTP status; that of others is common to all below 500, and to all above."""


class RequestError(Exception):
    """Error that a client gets as the answer to its request."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """Describe the error.

        Args:
            status: HTTP status code.
            message: what is wrong, and what to do; one line.
            param: field of the body that is wrong.
            code: short name of the error, for programs.
            retry_after_s: seconds after which the same request may be answered.
        """
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers: Mapping[str, str] = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}

    def body(self) -> dict[str, JsonValue]:
        """Return the JSON of the answer."""
        common = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, common),
                "param": self.param,
                "code": self.code,
            }
        }


def to_error(rejection: Rejection) -> RequestError:
    """Return the answer to a request that the engine has rejected."""
    if rejection.reason == Reason.PROMPT_TOO_LONG:
        message = f"prompt and answer exceed the context length: {rejection.detail}"
        return RequestError(400, message, code="context_length_exceeded")
    return RequestError(500, rejection.detail or str(rejection.reason))
