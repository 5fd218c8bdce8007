"""Errors of the service and their HTTP status.

Every answer that is not a success is JSON, ``{"error": "one line"}``, whatever route it comes from. Where it is about
one of many lines and zones, ``rule`` is its name.
"""

from __future__ import annotations

import math
from http import HTTPStatus

from perception.errors import EngineError, ModelError, PerceptionError, SinkError, SourceError, StageError, UsageError
from perception.rules.settings import RuleError


class Problem(PerceptionError):
    """A request that cannot be served, with the HTTP status that says so."""

    status: int = HTTPStatus.BAD_REQUEST


class Unauthorized(Problem):
    """Credentials are missing or wrong."""

    status = HTTPStatus.UNAUTHORIZED


class Forbidden(Problem):
    """Access is denied: a source that the operator has not allowed, a page of another origin."""

    status = HTTPStatus.FORBIDDEN


class NotFound(Problem):
    """There is no such job, stream, model or result."""

    status = HTTPStatus.NOT_FOUND


class Conflict(Problem):
    """The request does not fit the current state: the result of a job that still runs."""

    status = HTTPStatus.CONFLICT


class Changed(Problem):
    """What a client wants to replace is not what it knows any more."""

    status = HTTPStatus.PRECONDITION_FAILED


class TooLarge(Problem):
    """More bytes, pixels or seconds than the operator's limits."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class Unsupported(Problem):
    """The media type is not supported by this route."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class TooSlow(Problem):
    """The client stopped sending before the body was complete."""

    status = HTTPStatus.REQUEST_TIMEOUT


class NotAcceptable(Problem):
    """The client accepts none of the available media types."""

    status = HTTPStatus.NOT_ACCEPTABLE


class NotInstalled(Problem):
    """A package that the operator can install is missing on this server."""

    status = HTTPStatus.NOT_IMPLEMENTED


class Busy(Problem):
    """A limit is reached; the same request may succeed later.

    Args:
        message: one line.
        retry_after_s: seconds after which to try again.
        status: 503 where the server as a whole is busy, 429 where this client asks for too much.
    """

    def __init__(self, message: str, retry_after_s: float = 1.0, status: int = HTTPStatus.SERVICE_UNAVAILABLE) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status


_STATUS: dict[type[PerceptionError], HTTPStatus] = {
    SourceError: HTTPStatus.UNPROCESSABLE_ENTITY,
    UsageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ModelError: HTTPStatus.SERVICE_UNAVAILABLE,
    EngineError: HTTPStatus.SERVICE_UNAVAILABLE,
    SinkError: HTTPStatus.INSUFFICIENT_STORAGE,
    StageError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def status_of(error: PerceptionError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, Problem):
        return int(error.status)
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return int(status)
    return int(HTTPStatus.SERVICE_UNAVAILABLE)


def headers_of(error: PerceptionError) -> dict[str, str]:
    """HTTP headers that go with an error: ``Retry-After``, whole seconds, where trying again makes sense."""
    return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))} if isinstance(error, Busy) else {}


def rule_of(error: PerceptionError) -> dict[str, str]:
    """What an answer says beside an error: the ``rule`` that it is about, where it is about one that has a name."""
    name = error.rule if isinstance(error, RuleError) else None
    return {"rule": name} if name is not None and name.isprintable() else {}
