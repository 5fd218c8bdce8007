"""What a source's URI says: which kind of source it is, and how to show it without its secrets."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from perception.errors import SourceError

Kind = Literal["file", "images", "camera", "csi", "stream", "stdin", "synthetic"]

STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp")
IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".pbm", ".pgm", ".ppm"),
        *(".pnm", ".heic", ".heif", ".hif", ".avif"),
    )
)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+(?=:)")  # two letters at least: C:\ is a drive
_PORT = re.compile(r"^[^:]+(:\d*)?$|^\[[^\]]*\](:\d*)?$")
_SECRET = re.compile(r"pass|pwd|secret|token|key|auth|sig|cred|user", re.IGNORECASE)
_URL_WITH_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]*@")


def kind_of(uri: str) -> Kind:
    """Which kind of source ``uri`` names. Something that exists on disk wins over a scheme of the same look.

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
            if name in STREAM_SCHEMES and uri[scheme.end() :].startswith("://"):
                try:
                    urlsplit(uri)
                except ValueError as error:
                    raise SourceError(f"not a URL: {error}", redact(uri)) from None
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
    """Whether something is there; False too for names that no file system can hold."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there; False too for names that no file system can hold."""
    return exists(path) and path.is_dir()


def exact(text: str) -> Fraction:
    """A number in a URI: ``25``, ``29.97`` or ``30000/1001``.

    Raises:
        ValueError: it is none, or too long to be one; ``1e999999999`` would take all the machine's memory.
    """
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?(/\d{1,9})?", text.strip()):
        raise ValueError(f"not a number: {text!r}")
    top, _, bottom = text.strip().partition("/")
    return Fraction(top) / Fraction(bottom or 1)


def redact(uri: str) -> str:
    """``uri`` without user, password and parameters that look like secrets, for messages, logs and results."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    rest = rest.partition("#")[0]
    place, mark, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    if "@" in authority:
        authority = authority.rpartition("@")[2]
    elif "@" in path and not _PORT.search(authority):
        # A password with a slash in it, as people paste them.
        authority, slash, path = path.rpartition("@")[2].partition("/")
    if _SECRET.search(query):
        pairs = parse_qsl(query, keep_blank_values=True)
        query = urlencode([(k, "***" if _SECRET.search(k) else v) for k, v in pairs], safe="*")
    return f"{scheme}://{authority}{slash}{path}{mark}{query}"


def redact_text(text: str, uri: str) -> str:
    """``text``, which may quote ``uri`` or another URL with credentials, without them."""
    return _URL_WITH_CREDENTIALS.sub("", text.replace(uri, redact(uri)))
