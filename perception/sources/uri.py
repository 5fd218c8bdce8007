"""Reading a source's URI: which kind of source it is, and how to show it without its secrets."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Literal

from perception.common.objects import is_object
from perception.common.objects import plain as plain_name
from perception.errors import SourceError
from perception.sources.address import Address, hidden

Kind = Literal["file", "images", "camera", "csi", "stream", "stdin", "synthetic", "object"]

STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp")
IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".pbm", ".pgm", ".ppm"),
        *(".pnm", ".heic", ".heif", ".hif", ".avif"),
    )
)

VIDEO_SUFFIXES = frozenset(
    (
        *(".3gp", ".asf", ".avi", ".flv", ".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov"),
        *(".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
    )
)
"""Files in a folder that are taken for videos."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+(?=:)")  # two letters at least: C:\ is a drive
_URL = re.compile(r"""[^\s'"]+://[^\s'"]*""")


def kind_of(uri: str) -> Kind:
    """Return the kind of source that ``uri`` names. Something that exists on disk wins over a scheme of the same look.

    Raises:
        SourceError: the URI is empty, no valid URL, or has a scheme that is not allowed. FFmpeg knows many more
            (``concat:``, ``subfile:``, ``data:``): they would let a file name reach other files and hosts.
    """
    if uri == "-":
        return "stdin"
    if not uri.strip():
        raise SourceError("the source is empty; give a file, folder, camera number or URL")
    if re.fullmatch(r"\d{1,3}", uri) or re.fullmatch(r"/dev/video\d+", uri):
        return "camera"
    path = Path(uri)
    if not exists(path):
        scheme = _SCHEME.match(uri)
        if scheme:
            name = scheme.group().lower()
            if name == "synthetic":
                return "synthetic"
            if name == "csi":
                return "csi"
            if is_object(uri):
                return "object"
            if name in STREAM_SCHEMES and uri[scheme.end() :].startswith("://"):
                Address.read(uri)
                return "stream"
            allowed = ", ".join(f"{s}://" for s in (*STREAM_SCHEMES, "csi"))
            raise SourceError(
                f"unknown kind of URL {name + ':'!r}; known are {allowed} and synthetic:; give a file by its path",
                redact(uri),
            )
        if any(c in uri for c in "*?["):
            return "images"
    if is_folder(path) or path.suffix.lower() in IMAGE_SUFFIXES:
        return "images"
    return "file"


def exists(path: Path) -> bool:
    """True where something is there; False too for names that no file system can hold."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """True where a folder is there; False too for names that no file system can hold."""
    return exists(path) and path.is_dir()


def exact(text: str) -> Fraction:
    """Parse a number in a URI: ``25``, ``29.97`` or ``30000/1001``.

    Raises:
        ValueError: it is none, or too long to be one; ``1e999999999`` would take all the machine's memory.
    """
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?(/\d{1,9})?", text.strip()):
        raise ValueError(f"not a number: {text!r}")
    top, _, bottom = text.strip().partition("/")
    return Fraction(top) / Fraction(bottom or 1)


def redact(uri: str) -> str:
    """Return the name of ``uri`` in messages, logs and results: the one place where secrets are removed.

    Of a network address nothing shows but scheme, host and port: cameras have passwords and keys in user information,
    in the path (``/user=admin_password=x_channel=1.sdp``, ``/live/KEY``) and in the query, and nothing tells them from
    other words. Files, objects, cameras and drawn scenes are called by their whole name.
    """
    plain = "".join(c if c.isprintable() else "?" for c in uri)
    if "://" in uri and not uri.startswith(("/", "./", "../")):
        if is_object(uri):
            return plain_name(plain)
        return plain if _DRAWN_OR_CSI.fullmatch(uri) else hidden(uri)
    # An address without its scheme. Something of that name on this machine is none.
    if ":" in uri.partition("@")[0] and "@" in uri and not exists(Path(uri)):
        return hidden(uri)
    return plain


_DRAWN_OR_CSI = re.compile(r"csi://[\w?&=/.-]*|synthetic:[\w?&=/.:-]*", re.IGNORECASE)


def redact_text(text: str, uri: str | None = None) -> str:
    """``text``, which may quote ``uri`` or another URL, with what `redact` makes of them."""
    return _URL.sub(lambda found: redact(found.group()), text.replace(uri, redact(uri)) if uri else text)
