"""Validation of request headers, and the credentials in them."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import HTTPConnection

from perception.server.problems import Problem, Unauthorized

MOST, MOST_BYTES = 100, 32 << 10
"""Limits on the number of headers of a request, and on their bytes in total."""

_ONCE = (b"host", b"authorization", b"origin", b"content-length", b"content-type", b"range")
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_LENGTH = re.compile(rb"[0-9]{1,15}")


class Malformed(Unauthorized):
    """Credentials that cannot be parsed; they do not count as a guess."""


class HeadersTooLarge(Problem):
    """The headers of a request exceed the limits."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


def check_headers(headers: list[tuple[bytes, bytes]]) -> None:
    """Validate the headers of a request.

    Raises:
        Problem: too many, too long, one twice that may appear once, or an invalid host or length.
    """
    if len(headers) > MOST or sum(len(name) + len(value) for name, value in headers) > MOST_BYTES:
        raise HeadersTooLarge(f"a request has at most {MOST} headers of {MOST_BYTES} bytes together")
    for name in _ONCE:
        values = [value for given, value in headers if given == name]
        if len(values) > 1:
            raise Problem(f"a request must not have more than one {name.decode()} header")
        if name == b"host" and values and values[0] and not _HOST.fullmatch(values[0]):
            raise Problem("the host header is not a host")
        if name == b"content-length" and values and not _LENGTH.fullmatch(values[0]):
            raise Problem("the content-length header is not a number of bytes")


@dataclass(frozen=True)
class Credentials:
    """Credentials of a request: tokens, or user and password."""

    tokens: tuple[bytes, ...] = ()
    user: bytes | None = None
    password: bytes = b""

    def __bool__(self) -> bool:
        return bool(self.tokens) or self.user is not None

    def __bytes__(self) -> bytes:
        """Serialize them; different credentials give different bytes."""
        return repr((self.tokens, self.user, self.password)).encode()


def credentials(connection: HTTPConnection) -> Credentials:
    """Parse the credentials of a request, in its header and in its query.

    Raises:
        Malformed: the header is neither Bearer nor Basic.
    """
    query = connection.query_params.get("token")
    tokens = () if query is None else (query.encode(),)
    header = connection.headers.get("authorization")
    if header is None:
        return Credentials(tokens)
    kind, _, value = header.partition(" ")
    given = value.strip().encode("latin-1")
    if kind.lower() == "bearer" and given:
        return Credentials((*tokens, given))
    if kind.lower() == "basic":
        try:
            user, colon, password = base64.b64decode(given, validate=True).partition(b":")
        except binascii.Error:
            colon = b""
        if colon:
            return Credentials(tokens, user, password)
    raise Malformed(
        "these credentials cannot be read; send 'Authorization: Bearer TOKEN', or Basic with user:password in base64"
    )
