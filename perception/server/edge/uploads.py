"""Uploads: received up to a limit, and checked by their headers before anything is decoded.

A picture or a video of a few kilobytes may expand to gigabytes (a decompression bomb). Its header tells its size, so
that is read first.
"""

from __future__ import annotations

import asyncio
import io
import math
import shutil
import time
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from perception.common.files import file_size
from perception.common.private import private_file
from perception.errors import PerceptionError, SinkError, SourceError
from perception.server.edge.decoding import FORMATS as IMAGE_FORMATS
from perception.server.edge.decoding import decode
from perception.server.edge.multipart import FORM, MOST_AROUND, FormFile
from perception.server.problems import TooLarge, TooSlow, Unsupported
from perception.server.settings import Limits
from perception.sinks.files import reason
from perception.sources.container import local_formats, open_container, video_stream
from perception.types import U8

MOST_FPS = 240
"""Frame rate that limits the number of frames: a video may claim to be short and contain any number of frames."""

SLOWEST_BYTES_PER_S = 8000
"""Least average speed of uploads that take longer than the time-out: each holds a place that others wait for."""

_SPARE_BYTES = 64 << 20  # of the disk, left free


@dataclass(frozen=True)
class Upload:
    """An upload: the body of a request, or the one file of a form.

    Attributes:
        stream: the bytes, as they come.
        name: file name that a form gives; for people, never a path. Else nothing.
    """

    stream: AsyncIterator[bytes]
    name: str = ""


async def open_upload(request: Request, known: tuple[str, ...], limit: int, timeout_s: float, what: str) -> Upload:
    """Check the headers of an upload, before its body is read.

    Args:
        request: with the file for its body, or with a form that holds just one file.
        known: accepted media types; ``video/*`` stands for all videos, an empty one for none given.
        limit: in bytes.
        timeout_s: seconds to wait for the head of a form.
        what: what is sent, for messages.

    Raises:
        Unsupported: the media type is another one.
        TooLarge: its ``Content-Length`` exceeds the limit.
        TooSlow: the head of a form did not come.
        Problem: not a form, or none with one file.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    is_form = kind == FORM.encode()
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit + (MOST_AROUND if is_form else 0):
        raise _too_large(what, limit)
    if not is_form:
        _check_kind(kind.decode("latin-1").strip(), known, what)
        return Upload(request.stream())
    form = FormFile(request.stream(), options.get(b"boundary", b""))
    try:
        await asyncio.wait_for(form.open(), timeout_s)
    except asyncio.TimeoutError:
        raise TooSlow(f"no data for {timeout_s:g} s; send {what} again") from None
    _check_kind(form.kind, known, what)
    return Upload(aiter(form), form.name)


def _check_kind(kind: str, known: tuple[str, ...], what: str) -> None:
    if kind not in known and f"{kind.partition('/')[0]}/*" not in known:
        hint = " (the file itself, or a form: -F file=@NAME)" if "form" in kind else ""
        raise Unsupported(f"send {what} as {', '.join(k for k in known if k)}{hint}, not as {kind[:60]!r}")


async def chunks(
    stream: AsyncIterator[bytes], limit: int, timeout_s: float, what: str, total_s: float = math.inf
) -> AsyncIterator[bytes]:
    """Yield the parts of a request's body, up to ``limit`` bytes.

    Args:
        stream: the body.
        limit: in bytes.
        timeout_s: seconds to wait for each part.
        what: what is sent, for messages.
        total_s: seconds for the whole.

    Raises:
        TooLarge: there is more.
        TooSlow: nothing came for ``timeout_s``, or after that less than `SLOWEST_BYTES_PER_S` on average; or it is not
            complete after ``total_s``.
    """
    total = 0
    began = time.monotonic()
    parts = aiter(stream)
    while True:
        left_s = total_s - (time.monotonic() - began)
        try:
            part = await asyncio.wait_for(anext(parts, b""), max(0.0, min(timeout_s, left_s)))
        except asyncio.TimeoutError:
            if left_s < timeout_s:
                raise TooSlow(f"{what} took longer than {total_s:g} s; use a faster connection") from None
            raise TooSlow(f"no data for {timeout_s:g} s; send {what} again") from None
        if not part:
            # Bodies end with an empty part; one in the middle does not occur (HTTP/1.1 has no empty chunk).
            return
        total += len(part)
        if total > limit:
            raise _too_large(what, limit)
        seconds = time.monotonic() - began
        if seconds > timeout_s and total < seconds * SLOWEST_BYTES_PER_S:
            raise TooSlow(f"{what} is arriving too slowly; use a faster connection")
        yield part


async def receive_bytes(
    stream: AsyncIterator[bytes], limit: int, timeout_s: float, what: str, total_s: float = math.inf
) -> bytes:
    """Read a request's whole body; see `chunks`."""
    return b"".join([part async for part in chunks(stream, limit, timeout_s, what, total_s)])


async def receive_file(
    stream: AsyncIterator[bytes], path: Path, limit: int, timeout_s: float, what: str, total_s: float = math.inf
) -> int:
    """Write a request's body into a file as it arrives; see `chunks`.

    Returns:
        the number of bytes.

    Raises:
        SinkError: the disk is full, or nearly.
    """
    total = 0
    try:
        with private_file(path) as file:
            async for part in chunks(stream, limit, timeout_s, what, total_s):
                if shutil.disk_usage(path.parent).free < len(part) + _SPARE_BYTES:
                    raise SinkError("the server's disk is full; try again when there is room")
                await asyncio.to_thread(file.write, part)
                total += len(part)
    except OSError as error:
        raise SinkError(f"the server cannot keep this upload: {reason(error)}") from None
    return total


def read_image(data: bytes, limits: Limits) -> U8:
    """Check and decode an uploaded image: `image_size` and `decode` in one."""
    return decode(data, *image_size(data, limits))


def image_size(data: bytes, limits: Limits) -> tuple[int, int]:
    """Read width and height of an uploaded image from its header; nothing is decoded.

    Args:
        data: JPEG, PNG, WebP or BMP.
        limits: ``pixels`` is the most that it may have.

    Raises:
        SourceError: not an image.
        TooLarge: more pixels.
    """
    if not data:
        raise SourceError("the body is empty; send the bytes of an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit is ours
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as header:
                width, height = header.size
    except Image.DecompressionBombError:
        raise TooLarge(f"the image has more than {limits.pixels} pixels") from None
    except Exception:  # Pillow raises whatever a damaged header leads to
        raise SourceError(f"not an image that can be read; send {', '.join(IMAGE_FORMATS)}") from None
    check_pixels(width, height, limits.pixels, "image")
    return width, height


def check_pixels(width: int, height: int, limit: int, what: str) -> None:
    """Check a size against the operator's limit.

    Raises:
        TooLarge: there are more pixels.
    """
    if width * height > limit:
        raise TooLarge(f"the {what} has {width}x{height} pixels; the limit is {limit}")


def check_video(path: Path, name: str, limits: Limits) -> None:
    """Check an uploaded video by its header.

    Raises:
        SourceError: not a video; playlists and other references to files are refused.
        TooLarge: more pixels or seconds than the operator's limits.
    """
    if not path.stat().st_size:
        raise SourceError("the body is empty; send the bytes of a video")
    whitelist = {"protocol_whitelist": "file", "format_whitelist": local_formats()}
    try:
        container = open_container(f"file:{path.absolute()}", name, whitelist)
    except PerceptionError as error:
        raise SourceError(error.message, name) from None
    with container:
        codec = video_stream(container, name).codec_context
        check_pixels(codec.width, codec.height, limits.video_pixels, "video")
        seconds = container.duration / 1e6 if container.duration else 0.0
        if seconds > limits.upload_seconds:
            raise TooLarge(f"the video lasts {seconds:.0f} s; the limit is {limits.upload_seconds:g} s")


def _too_large(what: str, limit: int) -> TooLarge:
    return TooLarge(f"{what} is larger than the limit of {file_size(limit)}")
