"""Files from the web: resumed where they broke off, checked before they are used."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from perception.common.files import sha256_of
from perception.common.version import __version__
from perception.errors import ModelError

TIMEOUT_S = 20.0
"""A server that says nothing for so long is given up."""

LARGEST_BYTES = 4 << 30
"""No model is larger; a server that sends without end must not fill the disk."""

_CHUNK = 1 << 18
_PARTIAL, _RANGE_NOT_SATISFIABLE = 206, 416


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> None:
    """Fetch a file into ``path``, which may hold the beginning of it already.

    What came stays in ``path`` when the connection breaks, so that the next call goes on from there; a file that turns
    out to be another one is removed.

    Args:
        url: an ``http`` or ``https`` address.
        path: the file to write or to go on with.
        sha256: what the whole file must have; None takes any.
        size: bytes of the whole file; None where that is not known.
        progress: called with (bytes that are there, bytes in all or None).

    Raises:
        ModelError: it cannot be fetched or written, or is not the file that was expected.
    """
    try:
        there = path.stat().st_size if path.is_file() else 0
        if not (size is not None and there == size):
            total = _fetch(url, path, there, size, progress)
            there = path.stat().st_size
            if total is not None and there != total:
                raise ModelError(f"the connection broke after {there} of {total} bytes; the next call resumes it", url)
    except urllib.error.HTTPError as error:
        raise ModelError(f"cannot be downloaded: the server answers {error.code} {error.reason}", url) from None
    except urllib.error.URLError as error:
        raise ModelError(f"cannot be downloaded: {error.reason}", url) from None
    except (HTTPException, TimeoutError, ConnectionError) as error:
        why = str(error) or type(error).__name__
        raise ModelError(f"the connection broke ({why}); the next call resumes it", url) from None
    except OSError as error:
        raise ModelError(f"cannot write the download: {error.strerror or error}", path) from None
    if sha256 is not None and sha256_of(path) != sha256:
        path.unlink()
        raise ModelError("the download is not the expected file: its SHA-256 differs", url)


def _fetch(
    url: str, path: Path, there: int, size: int | None, progress: Callable[[int, int | None], None] | None
) -> int | None:
    """Append what is missing; returns the size that the server gives the whole file."""
    headers = {"User-Agent": f"perception/{__version__}"} | ({"Range": f"bytes={there}-"} if there else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != _RANGE_NOT_SATISFIABLE or not there:
            raise
        path.unlink()  # it has all of the file and more, or another one
        return _fetch(url, path, 0, size, progress)
    with response:
        if response.status != _PARTIAL:
            there = 0  # the server sends the whole file anew
        length = response.headers.get("Content-Length")
        total = there + int(length) if length is not None and length.isdigit() else size
        with path.open("ab" if there else "wb") as file:
            while chunk := response.read(_CHUNK):
                there += len(chunk)
                if there > (total or LARGEST_BYTES):
                    raise ModelError(f"the server sends more than the {total or LARGEST_BYTES} bytes expected", url)
                file.write(chunk)
                if progress is not None:
                    progress(there, total)
    return total
