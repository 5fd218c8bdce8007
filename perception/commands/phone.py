"""The live page on a phone: its address in the network, and a QR code of it on the terminal."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from urllib.parse import urlsplit, urlunsplit

BORDER = 2
"""Light modules around the code; scanners want some, and terminals are small."""

HALVES = (" ", "\u2584", "\u2580", "\u2588")
"""A character for two modules, one above the other: none is dark, the lower one, the upper one, both."""


def network_url(url: str, host: str) -> str:
    """Return the address of the page that others in the network reach without knowing this machine's name.

    Args:
        url: the address, with the name of this machine where the server listens on all networks.
        host: what the server listens on.
    """
    family, far = {
        "0.0.0.0": (socket.AF_INET, "192.0.2.1"),
        "::": (socket.AF_INET6, "2001:db8::1"),
    }.get(host, (None, ""))
    if family is None:
        return url
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))  # of a datagram socket that sends nothing: it only chooses a way
            address: str = probe.getsockname()[0]
    except OSError:  # no way leads out of this machine
        return url
    parts = urlsplit(url)
    name = f"[{address}]" if family == socket.AF_INET6 else address
    return urlunsplit(parts._replace(netloc=f"{name}:{parts.port}"))


def qr_code(text: str) -> list[str]:
    """Return lines that show a QR code where they are printed dark on light; none where `segno` is not installed."""
    if find_spec("segno") is None:
        return []
    import segno

    rows = [list(row) for row in segno.make(text, micro=False, error="l").matrix_iter(border=BORDER)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return [
        "".join(HALVES[2 * (upper > 0) + (lower > 0)] for upper, lower in zip(*pair, strict=True)) for pair in pairs
    ]
