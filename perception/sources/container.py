"""Opening a container of FFmpeg's with a video stream in it, and saying in one line why it cannot be opened."""

from __future__ import annotations

import errno
import os
import time
from functools import lru_cache
from typing import Any

import av
import av.error

from perception.common.bounds import Bounds
from perception.errors import SourceError
from perception.sources.address import unknown_host
from perception.sources.base import log
from perception.sources.nvdec import accelerator
from perception.sources.uri import redact, redact_text

_REFUSED_FORMATS = frozenset({
    "hls", "concat", "dash", "imf", "sdp", "webm_dash_manifest",  # lists that lead to other files and hosts
    "lavfi", "tty", "fbdev", "ffmetadata", "video4linux2", "v4l2", "alsa", "x11grab", "kmsgrab", "rawvideo",
})  # fmt: skip
_STILL_FORMATS = ("image2", "image2pipe")
_NO_TIMESTAMPS = 0x0080  # AVFMT_NOTIMESTAMPS: what FFmpeg gives is counted at an assumed rate


class UnreadableError(SourceError):
    """The data cannot be read as a video; it may be readable in another way."""


class StillPictureError(SourceError):
    """The data is a single picture."""


@lru_cache(maxsize=1)
def local_formats() -> str:
    """FFmpeg's ``format_whitelist`` for local files: every demuxer but lists, devices and text."""
    return ",".join(sorted(name for name in av.formats_available if name not in _REFUSED_FORMATS))


def open_container(
    target: Any,
    where: str,
    options: dict[str, str],
    timeout: float | None = None,
    *,
    decoding: str = "auto",
    bounds: Bounds | None = None,
    format: str | None = None,
) -> av.container.InputContainer:
    """Open a container with at least one video stream in it.

    Args:
        target: a URL, or a file object to read.
        where: what to name in errors; may hold credentials.
        options: FFmpeg's options.
        timeout: seconds to wait for the connection, and for each read after that; None waits for ever.
        decoding: where to decode, see ``perception.sources.nvdec``.
        bounds: what its pictures are held to, the first ones also that FFmpeg decodes to look at them.
        format: what to take it for, whatever it looks like.

    Raises:
        UnreadableError: what is there is no video that can be read.
        StillPictureError: it is a picture.
        SourceError: it cannot be opened, or is a video too large.
        UsageError: an unknown kind of decoding.
    """
    began = time.monotonic()
    if bounds is not None:
        options = options | bounds.codec_options
    gpu = accelerator(decoding, redact(where))
    try:
        container = av.open(target, "r", format=format, options=options, timeout=timeout, hwaccel=gpu)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if gpu is not None and isinstance(target, str) and getattr(error, "filename", None) is None:
            # Faults of the file name it. This is the GPU, and it may have worked a moment ago.
            log.warning("%s: decoded on the CPU: the GPU failed: %s", redact(where), error)
            return open_container(target, where, options, timeout, decoding="cpu", bounds=bounds, format=format)
        # RTSP reports its own timeout as invalid data.
        late = timeout is not None and time.monotonic() - began >= 0.95 * timeout
        reason = explain(TimeoutError() if late else error, where, timeout)
        unreadable = not late and isinstance(error, av.error.InvalidDataError)
        # The cause quotes the whole URL with its password: keep it out of tracebacks.
        raise (UnreadableError if unreadable else SourceError)(reason, redact(where)) from None
    try:
        name = container.format.name
        if name in _STILL_FORMATS or name.endswith("_pipe"):
            kind = name.removesuffix("_pipe")
            advice = "give the address of its stream" if "://" in where else "rename it with the right extension"
            raise StillPictureError(f"this is a picture ({kind}), not a video; {advice}", redact(where))
        stream = video_stream(container, where)
        if bounds is not None:
            bounds.check_size(stream.codec_context.width, stream.codec_context.height, redact(where))
        if gpu is not None and not stream.codec_context.is_hwaccel:
            log.warning("%s: decoded on the CPU: NVDEC has no %s", redact(where), stream.codec_context.name)
    except SourceError:
        container.close()
        raise
    return container


def video_stream(container: av.container.InputContainer, where: str) -> av.VideoStream:
    """Choose the video stream to read: the one flagged as default, else the largest. Cover pictures do not count.

    Raises:
        SourceError: there is none, or none that can be decoded.
    """
    kinds = av.stream.Disposition
    streams = [s for s in container.streams.video if not s.disposition & kinds.attached_pic]
    if streams and all(s.disposition & kinds.dependent for s in streams):
        raise StillPictureError("this is a picture in tiles (HEIF), not a video", redact(where))
    if not streams:
        has = "audio only" if container.streams.audio else "no video stream; was it cut short?"
        raise SourceError(f"it contains no video ({has})", redact(where))
    decodable = [s for s in streams if s.codec_context is not None]
    if not decodable:
        raise SourceError("its video codec is not one that this FFmpeg build can decode", redact(where))
    return max(
        decodable,
        key=lambda s: (bool(s.disposition & av.stream.Disposition.default), s.width * s.height, -s.index),
    )


def explain(error: BaseException, where: str, timeout: float | None = None) -> str:
    """Explain in one line why FFmpeg could not open ``where``, without credentials."""
    if isinstance(error, av.error.ExitError | av.error.TimeoutError | TimeoutError):
        return f"no answer in {timeout:g} s" if timeout is not None else "no answer in time"
    if isinstance(error, av.error.InvalidDataError) and "://" in where:
        return "what the server sends is not a video that can be read"
    if isinstance(error, av.error.InvalidDataError):
        return "not a video that can be read; if it is one, it was cut short or is still being written"
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return "the server refuses access; check user name and password"
    if isinstance(error, av.error.HTTPNotFoundError):
        return "the server cannot find it (404)"
    if isinstance(error, av.error.HTTPError):
        return f"the server answers with an error: {error.strerror}"
    if isinstance(error, av.error.EOFError):
        return "it ends before its first frame; was it cut short, or was nothing recorded?"
    number = getattr(error, "errno", None)
    if number == errno.ECONNREFUSED:
        return "the connection was refused; is the server running on that port?"
    if number == errno.EIO and (host := unknown_host(where)):
        return f"the host {host} cannot be found; check its spelling and the network"
    if number == errno.EINVAL:
        return "not a video: a playlist, text, or something else that cannot be read from here"
    if isinstance(error, av.error.FFmpegError) and "not found" in str(error.strerror or "").lower():
        return f"this FFmpeg build cannot read it: {error.strerror}"
    if number is not None and 0 < number < 200:
        return f"cannot be opened: {os.strerror(number)}"
    reason = getattr(error, "strerror", None) or str(error)
    return f"cannot be opened: {redact_text(str(reason), where)}"


PLAYLISTS = ("hls", "dash")
"""Formats that are lists of files; what is known of the list says nothing of them."""


def has_clock(container: av.container.InputContainer) -> bool:
    """True where time stamps come from a clock, not from FFmpeg's guess of the rate."""
    return not container.format.flags & _NO_TIMESTAMPS
