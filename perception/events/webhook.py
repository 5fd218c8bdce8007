"""Webhooks: events posted over HTTP, signed as the Standard Webhooks specification has it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from perception.common.version import __version__
from perception.errors import UsageError
from perception.events.outbox import Letter
from perception.events.target import DeliveryError, Target

REFUSING = (400, 413, 414, 415, 422)
"""Answers that are about the event itself: no later attempt changes them. All others are tried again."""

MOST_RETRY_AFTER_S = 3600.0


class Webhook(Target):
    """Posts each event as JSON, one request at a time.

    The headers are those of Standard Webhooks (standardwebhooks.com): ``webhook-id`` is the event's id, and the same
    at each attempt; ``webhook-timestamp`` is the time of the attempt; ``webhook-signature`` is the HMAC-SHA256 of id,
    time stamp and body. Any answer of 200 to 299 accepts. `REFUSING` gives the event up, everything else, redirects
    included, is tried again; ``Retry-After`` is kept to, up to an hour.

    Args:
        url: ``http://`` or ``https://``; may contain a secret, so only its host is ever told.
        secret: key of the signature: base64 after ``whsec_``, or any text. None: no signature.
        token: sent as ``Authorization: Bearer``.
        timeout: seconds to wait for the connection and for each part of the answer; three times that for all of it.

    Raises:
        UsageError: the URL or the secret is none.
    """

    def __init__(self, url: str, *, secret: str | None = None, token: str | None = None, timeout: float = 10.0) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise UsageError("the address of a webhook is no URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or _has_blanks(url):
            raise UsageError("the address of a webhook is http://HOST/... or https://HOST/...")
        if parts.username is not None:
            raise UsageError("the address of a webhook has no user and password; give a token", parts.hostname)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._key = None if secret is None else _key(secret, parts.hostname)
        self._token = token
        self._timeout = timeout
        place = self._host if port is None else f"{self._host}:{port}"
        self.name = f"webhook {place} {hashlib.sha256(url.encode()).hexdigest()[:8]}"

    def deliver(self, letters: Sequence[Letter], accepted: Callable[[str], None]) -> None:
        for letter in letters:
            self._post(letter)
            accepted(letter.id)

    def _post(self, letter: Letter) -> None:
        body = letter.body.encode()
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout)
        # A server that sends a byte now and then would keep each single wait short.
        limit = threading.Timer(3 * self._timeout, _end, [connection])
        limit.daemon = True
        limit.start()
        try:
            connection.request("POST", self._path, body, self._headers(letter.id, body))
            answer = connection.getresponse()  # its status decides; what follows is not read
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DeliveryError(_why(error, self._timeout)) from None
        finally:
            limit.cancel()
            connection.close()
        if not 200 <= answer.status < 300:
            told = f"it answers {answer.status} {http.client.responses.get(answer.status, '')}".strip()
            if 300 <= answer.status < 400:
                told += "; redirects are not followed, give the address that it redirects to"
            refused = letter.id if answer.status in REFUSING else None
            raise DeliveryError(told, retry_after=_retry_after(answer.getheader("Retry-After")), refused=refused)

    def _headers(self, event_id: str, body: bytes) -> dict[str, str]:
        stamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"perception/{__version__}",
            "Connection": "close",
            "webhook-id": event_id,
            "webhook-timestamp": stamp,
        }
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, event_id, stamp, body)
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers


def signature(key: bytes, event_id: str, stamp: str, body: bytes) -> str:
    """Return the value of ``webhook-signature``: HMAC-SHA256 of id, time stamp and body, with dots between them."""
    digest = hmac.new(key, b".".join([event_id.encode(), stamp.encode(), body]), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(secret: str, host: str) -> bytes:
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise UsageError("the secret of the webhook is not base64 after whsec_", host) from None


def _has_blanks(url: str) -> bool:
    return any(character.isspace() or ord(character) < 32 for character in url)


def _end(connection: http.client.HTTPConnection) -> None:
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def _why(error: Exception, timeout: float) -> str:
    """Say what failed, in words of our own: the system's may quote the address."""
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection: {error.reason or 'the other side does not speak it'}"
    if isinstance(error, socket.gaierror):
        return "there is no host of that name"
    if isinstance(error, ConnectionRefusedError):
        return "the connection is refused; does the server run on that port?"
    if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
        return "its answer is no HTTP"
    return f"the connection failed: {getattr(error, 'strerror', None) or type(error).__name__}"


def _retry_after(text: str | None) -> float:
    """Return the seconds of a ``Retry-After`` header, within limits."""
    if not text:
        return 0.0
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), MOST_RETRY_AFTER_S) if seconds == seconds else 0.0
