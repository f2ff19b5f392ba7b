"""The errors that a client of the server gets: an HTTP status, and an object that names the field at fault."""

from __future__ import annotations

from tokenloom.errors import TokenloomError


class RequestError(TokenloomError):
    """A request that cannot be answered as it is: 400, or another status of the client's or of a busy server."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def to_json(self) -> dict[str, object]:
        """The body of the reply."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class ModelNotFound(RequestError):
    """No model has this id, or no longer; the message names those that exist."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=404, param="model", code="model_not_found")
