"""Which sources a client may open: those that the operator named, and URLs that match the operator's patterns.

A pattern is a URL: ``rtsp://cam1.local/*``, ``rtsp://*.cameras.example.org:8554/live/*``,
``https://example.org/a.mp4``, ``synthetic:*``. ``*`` and ``?`` stand for any characters, in the host for any but none
beyond it: scheme, host, port and path are compared one by one. A port that is left out is the scheme's own.

User and password in a client's URL are refused; a camera that wants them is for the operator to name.

A host that a pattern names in full may be anywhere; a host that only fits a ``*`` must have a public address, or a
client could reach into the operator's network through a name of its own. Loopback and link-local addresses (where
cloud machines keep their credentials) are reached only by patterns that name them as they are.

Names are looked up here and again by whatever connects: whoever runs the name servers of a host that a ``*`` lets in
could answer differently the second time. Name hosts in full where that matters.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
import urllib.error
import urllib.request
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote, urlsplit

from perception.errors import UsageError
from perception.server.problems import Forbidden, NotFound
from perception.server.settings import NamedSource, ServerSettings
from perception.sources.uri import STREAM_SCHEMES, redact

_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443}
_TIMEOUT_S = 5.0
_LONGEST = 2000
_ENCODED = 4
"""A path may be percent-encoded so many times over, less one."""


@dataclass(frozen=True)
class _Target:
    scheme: str
    host: str
    port: int | None
    path: str


def check_source(uri: str, settings: ServerSettings) -> NamedSource:
    """The source that a client asks for, if the client may have it. May look up a name, so it may take seconds.

    Args:
        uri: name of a source that the operator offers, number of a camera, or URL.
        settings: what the operator allows.

    Returns:
        what to open.

    Raises:
        Forbidden: it is not allowed, or leads to where it must not.
        NotFound: its host is not known, or does not answer.
    """
    if uri in settings.sources:
        return settings.sources[uri]
    if re.fullmatch(r"[0-9]{1,3}", uri):
        if int(uri) in settings.cameras:
            return NamedSource(uri=str(int(uri)))
        raise Forbidden(f"camera {int(uri)} is not offered by this server")
    if uri.startswith("synthetic:"):
        if any(pattern.startswith("synthetic:") and fnmatchcase(uri, pattern) for pattern in settings.allow):
            return NamedSource(uri=uri)
        raise _forbidden(uri)
    target = _parse(uri)
    if target is None:
        raise _forbidden(uri)
    patterns = [pattern for pattern in settings.allow if _fits(target, pattern)]
    if not patterns:
        raise _forbidden(uri)
    named = any(_has_host(pattern, target.host) for pattern in patterns)
    _check_addresses(target, named)
    if target.scheme in ("http", "https"):
        _check_no_redirect(uri)
    return NamedSource(uri=uri)


def check_patterns(patterns: tuple[str, ...]) -> None:
    """Look at the operator's patterns before any client does.

    Raises:
        UsageError: one that could never fit.
    """
    for pattern in patterns:
        if not pattern.startswith("synthetic:") and _pattern(pattern) is None:
            schemes = ", ".join(f"{scheme}://" for scheme in STREAM_SCHEMES)
            raise UsageError(f"allow: {redact(pattern)!r} fits no URL; give one of {schemes} with a host: rtsp://cam/*")


def _parse(uri: str, wildcards: bool = False) -> _Target | None:
    """The parts of a URL that may be compared; None where different programs might read it differently."""
    allowed = r"[A-Za-z0-9\-._~:/?#@!$&'()+,;=%*\[\]]+"
    if len(uri) > _LONGEST or not re.fullmatch(allowed, uri):
        return None
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return None
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower().rstrip(".")
    if scheme not in STREAM_SCHEMES or not host or "@" in uri or "%" in host:
        return None
    if not re.fullmatch(r"[a-z0-9\-._:]+" if not wildcards else r"[a-z0-9\-._:*?]+", host):
        return None
    if parts.fragment or not _is_plain(parts.path):
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(scheme, host, port or _PORTS.get(scheme), path)


def _is_plain(path: str) -> bool:
    """Whether a path leads where it says to, for every server that may read it.

    Servers undo percent-encoding, some of them twice, take ``\\`` for ``/``, cut off what follows a ``;``, drop spaces
    and dots at the end of a name, or read other characters as the ones that they look like. Whichever of these a path
    goes through, none of its names may come out as ``.`` or ``..``.
    """
    for _ in range(_ENCODED):
        likened = unicodedata.normalize("NFKC", path)
        if any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in likened):
            return False
        names = [name.partition(";")[0].strip() for name in re.split(r"[/\\]", likened)]
        if any(name and not name.strip(". ") for name in names):
            return False
        try:
            decoded = unquote(path, errors="strict")
        except UnicodeDecodeError:
            return False
        if decoded == path:
            return True
        path = decoded
    return False


def _fits(target: _Target, pattern: str) -> bool:
    wanted = _pattern(pattern)
    return wanted is not None and (
        target.scheme == wanted.scheme
        and target.port == wanted.port
        and fnmatchcase(target.host, wanted.host)
        and fnmatchcase(target.path, wanted.path)
    )


def _pattern(pattern: str) -> _Target | None:
    # A "?" in a pattern is a query's beginning, or one character: it fits both.
    return _parse(pattern, wildcards=True)


def _has_host(pattern: str, host: str) -> bool:
    wanted = _pattern(pattern)
    return wanted is not None and wanted.host == host


def _check_addresses(target: _Target, named: bool) -> None:
    """Refuse a host that lies where the client must not reach.

    Args:
        target: what is asked for.
        named: whether the operator named this very host.
    """
    literal = _address(target.host)
    if literal is not None:
        found = [literal]
    else:
        try:
            entries = socket.getaddrinfo(target.host, target.port or 80, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise NotFound(f"the host {target.host} is not known") from None
        found = [address for entry in entries if (address := _address(str(entry[4][0]).partition("%")[0])) is not None]
    for address in found:
        if named and (literal is not None or target.host == "localhost"):
            continue
        special = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
        if special or not (named or address.is_global):
            raise Forbidden(f"{target.host} is an address inside this network, which the operator did not allow")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _check_no_redirect(uri: str) -> None:
    """Refuse an address that leads to another one: that one was not checked."""
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    try:
        opener.open(urllib.request.Request(uri, headers={"User-Agent": "perception"}), timeout=_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
        if 300 <= error.code < 400:
            raise Forbidden("this address redirects to another one; give that one, if it is allowed") from None
        raise NotFound(f"the server at this address answers {error.code}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NotFound(f"no answer from this address: {reason}") from None


def _forbidden(uri: str) -> Forbidden:
    shown = "".join(c for c in redact(uri[:200]) if c.isprintable())
    return Forbidden(f"{shown!r} is not among the sources that this server's operator allows")
