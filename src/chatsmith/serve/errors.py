"""What is said when a request cannot be met, in the form that OpenAI's clients read."""

from __future__ import annotations

from typing import Any

from chatsmith.errors import Busy, ChatsmithError, RequestError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    503: "server_error",
}


class ApiError(Exception):
    """An answer that is an error: an HTTP status, a sentence, and the field of the request that it is about."""

    def __init__(
        self, status: int, message: str, *, field: str | None = None, code: str | None = None, retry: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.code, self.retry = status, message, field, code, retry

    def body(self) -> dict[str, Any]:
        """{"error": {"message", "type", "param", "code"}}"""
        kind = _TYPES.get(self.status, "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.field, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """When to try again, and how to prove who one is."""
        found = {} if self.retry is None else {"retry-after": str(self.retry)}
        return found | ({"www-authenticate": "Bearer"} if self.status == 401 else {})

    @classmethod
    def of(cls, error: Exception) -> ApiError:
        """Any error as an answer. What is not known is a fault of ours, of which nothing is told."""
        if isinstance(error, ApiError):
            return error
        if isinstance(error, Busy):
            return cls(429, error.message, code="queue_full", retry=1)
        if isinstance(error, RequestError):
            return cls(400, error.message + (f" ({error.hint})" if error.hint else ""))
        if isinstance(error, ChatsmithError):
            return cls(500, error.message)
        return cls(500, "this is a fault in the server", code="internal_error")


def wrong(field: str, message: str) -> ApiError:
    """A field of the request that cannot be as it is."""
    return ApiError(400, f"{field} {message}", field=field, code="invalid_value")


def closing() -> ApiError:
    """The server takes no more requests."""
    return ApiError(503, "the server is closing down", code="closing", retry=5)


def crowded() -> ApiError:
    """There are as many connections as there may be."""
    return ApiError(503, "too many connections are open", code="too_many_connections", retry=1)


def too_slow(seconds: float) -> ApiError:
    """A request has used its time."""
    return ApiError(503, f"the answer took more than {seconds:g} s", code="timeout", retry=5)
