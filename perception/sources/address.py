"""Parsing of network addresses, in the one way that everything that connects relies on.

A password that is not percent-encoded may contain ``#``, ``?`` or ``/``, which end the host for some programs and not
for others: half of it would be looked up as the name of a host. Such an address is refused, and what to write is told.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from perception.errors import SourceError

PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443}
"""The port of a scheme where an address names none."""

ESCAPES = "write # as %23, ? as %3F, / as %2F, @ as %40, % as %25 and a space as %20"

_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{1,15})://([^/?#\\\s]*)(.*)", re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{1,15})://")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[\w.\-]+)?\]|[\w.\-*]+)(?::([0-9]{1,5})?)?")


@dataclass(frozen=True, slots=True)
class Address:
    """A network address in its one spelling.

    Attributes:
        scheme: in small letters.
        user: user and password as they stand, percent-encoded, with an ``@`` at the end; or nothing.
        host: in small letters, without a dot at the end; international names in their ASCII form, IP addresses in
            their shortest.
        port: None where it is the scheme's own.
        tail: path, query and fragment, as they stand.
    """

    scheme: str
    user: str
    host: str
    port: int | None
    tail: str

    @classmethod
    def read(cls, uri: str) -> Address:
        """Parse ``uri``.

        Raises:
            SourceError: programs may differ about where its host ends, or it has none.
        """
        found = _read(uri)
        if isinstance(found, str):
            raise SourceError(f"not a URL: {found}", hidden(uri))
        return found

    @property
    def place(self) -> str:
        """Host, and port where it is not the scheme's own, as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def connect_port(self) -> int | None:
        """The port to connect to, or None where neither the address nor the scheme has one."""
        return self.port or PORTS.get(self.scheme)

    @property
    def url(self) -> str:
        """All of it, credentials included."""
        return f"{self.scheme}://{self.user}{self.place}{self.tail}"

    @property
    def shown(self) -> str:
        """The URL without what may be secret."""
        return f"{self.scheme}://{self.place}{self.tail if self.tail in ('', '/') else '/...'}"


def unknown_host(uri: str) -> str:
    """Return the host of an address if no IP address is known for it, else nothing."""
    found = _read(uri)
    if isinstance(found, str) or not found.host:
        return ""
    try:
        socket.getaddrinfo(found.host, None)
    except (OSError, UnicodeError):
        return found.host
    return ""


def hidden(uri: str) -> str:
    """Return an address without what may be secret, also if it cannot be parsed."""
    found = _read(uri)
    if isinstance(found, Address):
        return found.shown
    scheme = _SCHEME.match(uri)
    return f"{scheme[1].lower()}://..." if scheme else "..."


def _read(uri: str) -> Address | str:
    """Parse ``uri``; return its fault if it has one."""
    parts = _PARTS.fullmatch(uri)
    if parts is None:
        return "scheme://host/path is expected"
    scheme, authority, tail = parts.groups()
    if "@" in tail:
        return f"there is an @ after the host; in user, password and path {ESCAPES}"
    user, at, place = authority.rpartition("@")
    anywhere = scheme.lower() == "udp" and place.startswith(":")  # udp://:5000 listens, whoever sends
    found = _HOST.fullmatch(f"0.0.0.0{place}" if anywhere else place)
    if found is None or (tail and tail[0] not in "/?#"):
        return f"no host and port can be read in it; in user and password {ESCAPES}"
    host = "" if anywhere else _plain_host(found[1])
    if host is None:
        return "its host is neither a name nor an IP address"
    port = int(found[2]) if found[2] else None
    if port is not None and not 0 < port < 65536:
        return "ports are from 1 to 65535"
    scheme = scheme.lower()
    return Address(scheme, user + at, host, None if port == PORTS.get(scheme) else port, tail)


def _plain_host(host: str) -> str | None:
    """Return the normal form of a host; None where it is neither a name nor an address."""
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            return None
    host = host.lower().rstrip(".")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii").lower()
        except UnicodeError:
            return None
    return host if re.fullmatch(r"[a-z0-9_.\-*]+", host) else None
