"""Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}, with the status that clients expect."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 408: "timeout_error", 413: "invalid_request_error", 415: "invalid_request_error",
    429: "rate_limit_error", 431: "invalid_request_error", 500: "server_error", 501: "invalid_request_error",
    502: "server_error", 503: "server_error",
}  # fmt: skip


class Refusal(Exception):
    """A request that is not answered, and why."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    def body(self) -> dict[str, Any]:
        """As JSON."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """As HTTP, with Retry-After where waiting helps."""
        headers = {"Retry-After": str(max(1, round(self.retry_after)))} if self.retry_after else {}
        return JSONResponse(self.body(), self.status, headers)
