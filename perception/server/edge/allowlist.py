"""The allow-list of sources: those that the operator named, and URLs that match the operator's patterns.

A pattern is a URL: ``rtsp://cam1.local/*``, ``rtsp://*.cameras.example.org:8554/live/*``,
``https://example.org/a.mp4``, ``synthetic:*``. ``*`` and ``?`` stand for any characters, in the host for any but none
beyond it: scheme, host, port and path are compared one by one. A port that is left out is the scheme's own.

User and password in a client's URL are refused; a camera that needs them must be named by the operator.

A host that a pattern names in full may be anywhere; a host that only fits a ``*`` must have a public address, or a
client could reach into the operator's network through a name of its own. Loopback and link-local addresses (where
cloud machines keep their credentials) are reached only by patterns that name them as they are.

An address is brought into its one spelling first (`perception.sources.address.Address`); that is what is compared,
looked up and opened: ``HTTP://CAM1.local.:80/a`` is ``http://cam1.local/a``.

A host's name is looked up once, here, and what connects over ``http``, ``rtsp`` and ``rtsps`` connects to the address
that was looked at. Over ``https`` and ``rtmp`` the name is looked up again: whoever runs the name servers of a host
that a ``*`` lets in could answer differently the second time. Name hosts in full where that matters.

Whatever an address leads to is not opened, because it was not checked: redirects of HTTP and RTSP, playlists, and
options of FFmpeg's in the query of ``udp://``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
import unicodedata
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from urllib.parse import unquote

from perception.errors import SourceError, UsageError
from perception.server.edge.probe import DEADLINE_S, check_no_redirect
from perception.server.problems import Forbidden, NotFound
from perception.server.settings import AddedSource, NamedSource, ServerSettings
from perception.sources.address import Address
from perception.sources.uri import STREAM_SCHEMES, redact

_LONGEST = 2000
_ENCODED = 4
"""Decoding passes over a percent-encoded path; one that still changes in the last is refused."""
_HOLD_IPV4 = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")))


@dataclass(frozen=True)
class Permitted:
    """A source that a client may have.

    Attributes:
        uri: what `perception.sources.open_source` takes.
        name: what to call it before anybody: the operator's name for it, or what is not secret of an address.
        loop, start, duration: see `perception.server.settings.NamedSource`.
        confined: a client chose it, so it may lead nowhere else.
        addresses: of its host, the only ones to connect to; nothing where there is none, or none was looked up.
    """

    uri: str
    name: str
    loop: bool = True
    start: float = 0.0
    duration: float | None = None
    confined: bool = True
    addresses: tuple[str, ...] = ()


def check_source(uri: str, settings: ServerSettings) -> Permitted:
    """Check a source that a client asks for. May look up a name and ask a server, which takes seconds.

    Args:
        uri: name of a source that the operator offers, number of a camera, or URL.
        settings: what the operator allows.

    Returns:
        what to open.

    Raises:
        Forbidden: it is not allowed, or leads to where it must not.
        NotFound: its host is unknown, or does not answer.
    """
    if uri in settings.sources:
        named = settings.sources[uri]
        if not isinstance(named, AddedSource):
            return as_named(uri, named)
        found = check_source(named.uri, settings.model_copy(update={"sources": {}}))
        return replace(as_named(uri, named), uri=found.uri, addresses=found.addresses)
    if re.fullmatch(r"[0-9]{1,3}", uri):
        if int(uri) in settings.cameras:
            return Permitted(str(int(uri)), str(int(uri)))
        raise Forbidden(f"camera {int(uri)} is not available on this server")
    if uri.startswith("synthetic:"):
        if may_be_allowed(uri, settings) and len(uri) <= _LONGEST and uri.isprintable():
            return Permitted(uri, redact(uri))
        raise _forbidden(uri)
    address = _read(uri)
    if address is None:
        raise _forbidden(uri)
    patterns = _matching(address, settings)
    if not patterns:
        raise _forbidden(uri)
    deadline = time.monotonic() + DEADLINE_S
    addresses = _check_addresses(address, any(pattern.host == address.host for pattern in patterns))
    if address.scheme in ("http", "https"):
        addresses = (check_no_redirect(address, addresses, deadline),)
    return Permitted(address.url, redact(address.url), addresses=addresses)


def as_named(name: str, source: NamedSource) -> Permitted:
    """What to open for a source that has a name; of one that was added its address is not checked yet."""
    confined = isinstance(source, AddedSource)
    return Permitted(source.uri, name, source.loop, source.start, source.duration, confined)


def may_be_allowed(uri: str, settings: ServerSettings) -> bool:
    """Whether an address or camera fits what the operator allows to clients, as far as can be told without asking."""
    if re.fullmatch(r"[0-9]{1,3}", uri):
        return int(uri) in settings.cameras
    if uri.startswith("synthetic:"):
        return any(pattern.startswith("synthetic:") and fnmatchcase(uri, pattern) for pattern in settings.allow)
    address = _read(uri)
    return address is not None and bool(_matching(address, settings))


def host_of(uri: str, settings: ServerSettings) -> str | None:
    """Return the host that `check_source` may have to wait for, or None where it answers at once."""
    address = None if uri in settings.sources else _read(uri)
    return address.host if address is not None and _matching(address, settings) else None


def check_patterns(patterns: tuple[str, ...]) -> None:
    """Check the operator's patterns.

    Raises:
        UsageError: one of them can never match.
    """
    for pattern in patterns:
        if not pattern.startswith("synthetic:") and _pattern(pattern) is None:
            schemes = ", ".join(f"{scheme}://" for scheme in STREAM_SCHEMES)
            raise UsageError(
                f"allow: {redact(pattern)!r} matches no URL; use one of {schemes} with a host: rtsp://cam/*"
            )


def _read(uri: str) -> Address | None:
    """Parse a client's URL; None if it is ambiguous, or has parts that clients may not give."""
    # International names are letters and digits; what else is not ASCII has no place in a URL.
    if len(uri) > _LONGEST or not re.fullmatch(r"(?:[A-Za-z0-9\-._~:/?#!$&'()+,;=%*\[\]]|[^\W\x00-\x7f])+", uri):
        return None
    address = _known(uri)
    if address is None or address.user or not re.fullmatch(r"[a-z0-9\-._:]+", address.host):
        return None
    if not address.tail.isascii() or not _is_plain(re.split(r"[?#]", address.tail, maxsplit=1)[0]):
        return None
    return replace(address, tail=address.tail.partition("#")[0])


def _matching(address: Address, settings: ServerSettings) -> list[Address]:
    """Return the operator's patterns that allow an address."""
    return [pattern for text in settings.allow if (pattern := _pattern(text)) and _matches(address, pattern)]


def _pattern(pattern: str) -> Address | None:
    """Parse an operator's pattern; None if it can never match."""
    address = _known(pattern)
    return None if address is None or address.user else address


def _known(uri: str) -> Address | None:
    try:
        address = Address.read(uri)
    except SourceError:
        return None
    return address if address.scheme in STREAM_SCHEMES and address.host else None


def _is_plain(path: str) -> bool:
    """Return whether every server resolves a path to the same place.

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


def _matches(address: Address, pattern: Address) -> bool:
    # FFmpeg reads options from the query of udp://, sizes of buffers among them: only the operator gives those.
    exact = address.scheme == "udp" and "?" in address.tail
    return (
        address.scheme == pattern.scheme
        and address.port == pattern.port
        and fnmatchcase(address.host, pattern.host)
        # A "?" in a pattern is a query's beginning, or one character: it fits both.
        and (address.tail == pattern.tail if exact else fnmatchcase(_path(address), _path(pattern)))
    )


def _path(address: Address) -> str:
    return address.tail if address.tail.startswith("/") else "/" + address.tail


def _check_addresses(target: Address, named: bool) -> tuple[str, ...]:
    """Look up the IP addresses of a host, and check that clients may reach them.

    Args:
        target: what is asked for.
        named: whether the operator named this very host.

    Raises:
        Forbidden: one of them does.
        NotFound: it has none.
    """
    literal = _address(target.host)
    if literal is not None:
        found = [literal]
    else:
        try:
            entries = socket.getaddrinfo(target.host, target.connect_port or 80, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise NotFound(f"unknown host {target.host}") from None
        found = [address for entry in entries if (address := _address(str(entry[4][0]).partition("%")[0])) is not None]
    for address in (reached for each in found for reached in _reached(each)):
        if named and (literal is not None or target.host == "localhost"):
            continue
        special = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
        public = address.is_global and not getattr(address, "is_site_local", False)
        if special or not (named or public):
            raise Forbidden(f"{target.host} is an address inside this network, which the operator has not allowed")
    return tuple(dict.fromkeys(str(address) for address in found))


def _reached(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return an address and the IPv4 addresses in it: mapped, 6to4, Teredo or NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    inside = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _HOLD_IPV4):
        inside.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(each for each in inside if each is not None)]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _forbidden(uri: str) -> Forbidden:
    # Anything but a plain name may be an incompletely pasted address.
    shown = uri if re.fullmatch(r"[\w. /-]{1,80}", uri) else redact(uri) if "://" in uri else "this"
    return Forbidden(f"{shown!r} is not among the sources that this server's operator allows")
