"""Network streams. A live one keeps its newest frame and counts what it drops; a finite one drops nothing.

An ``http(s)`` address whose container tells a duration, or whose server tells a length, is a file that happens to lie
elsewhere: it is read in order, as fast as it is asked for, and ``start`` may jump. All else is live, and its time
starts at 0 with its first frame; an address that gives a single picture is read again and again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import av

from perception.common.bounds import Bounds, TooLargeError
from perception.errors import PerceptionError, SourceError, UsageError
from perception.sources.address import Address
from perception.sources.base import Selection, Source, log
from perception.sources.container import (
    PLAYLISTS,
    StillPictureError,
    UnreadableError,
    local_formats,
    open_container,
    video_stream,
)
from perception.sources.decode import Decoder
from perception.sources.latest import LatestReader, LiveSource, selected
from perception.sources.packets import PacketRing
from perception.sources.presentation import Presenter
from perception.sources.relay import RtspRelay
from perception.sources.thinner import Thinner
from perception.sources.uri import redact
from perception.sources.video import VideoSource
from perception.types import Frame, SourceInfo

# What a stream may open on its way: its own transport, never local files.
_PROTOCOLS = {
    "http": "http,https,httpproxy,tls,tcp,crypto",
    "rtsp": "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https",
    "rtmp": "rtmp,rtmps,rtmpt,rtmpts,tcp,tls,http,https",
    "udp": "udp,rtp",
}
# What a client's may open, who could name others on the way.
_CONFINED = {"http": "http,https,tls,tcp", "rtsp": "rtsp,tcp", "rtmp": "rtmp,rtmps,tcp,tls", "udp": "udp"}

# A stream whose rate is not to be guessed needs but one picture to be known; else FFmpeg gathers seconds of them.
_AT_ONCE = {"fpsprobesize": "0", "analyzeduration": "0", "probesize": "32"}


def open_stream(
    uri: str,
    selection: Selection,
    *,
    timeout: float = 10.0,
    transport: str = "tcp",
    decoding: str = "auto",
    confined: bool = False,
    addresses: Sequence[str] = (),
    bounds: Bounds | None = None,
    threads: int = 0,
    deinterlace: bool = True,
    fps: float | None = None,
    packets: PacketRing | None = None,
) -> Source:
    """Connect to a stream and decode its first frame.

    Args:
        uri: ``rtsp(s)://``, ``rtmp(s)://``, ``http(s)://`` or ``udp://``.
        selection: which frames; ``start`` of a live stream counts from its first frame.
        timeout: seconds to wait for the connection, for what describes the stream, and for each read.
        transport: ``tcp`` or ``udp``, for RTSP.
        decoding: where to decode, see ``perception.sources.nvdec``.
        confined: follow no redirects and read no playlists.
        addresses: see `perception.sources.open_source`.
        bounds: what it is held to.
        threads, deinterlace: see ``Decoder``.
        fps: how often to read an address that gives a picture and not a stream.
        packets: is given them as they are read.

    Raises:
        SourceError: no answer in time, refused, or no video in it.
    """
    bounds = bounds or Bounds()
    address = Address.read(uri)
    where, uri = uri, address.url
    scheme = address.scheme
    family = scheme if scheme == "udp" else scheme.removesuffix("s")
    microseconds = str(int(timeout * 1e6))
    protocols = (_CONFINED if confined else _PROTOCOLS)[family]
    options = {"protocol_whitelist": protocols, "rw_timeout": microseconds}
    if family == "rtsp":
        options |= {"rtsp_transport": "tcp" if confined else transport, "timeout": microseconds}
    if confined and family != "rtsp":
        options["format_whitelist"] = local_formats()
    if family == "http" and confined:
        options["max_redirects"] = "0"
        if scheme == "http" and addresses:
            options["headers"] = f"Host: {address.place}\r\n"
            uri = replace(address, host=addresses[0]).url
    if confined and address.user:
        raise UsageError("a user and password are not allowed in this address", redact(where))
    if family == "rtsp":
        # What a camera sends is described before it comes. FFmpeg would look at frames for half a second or more, to
        # guess their rate. (Its flag "nobuffer" throws away what it looked at, and with it the key frame that a camera
        # begins with: the next one may be ten seconds away.)
        options |= {"fpsprobesize": "0", "analyzeduration": "0"}

    codec: dict[str, Any] = {"threads": threads, "deinterlace": deinterlace, "bounds": bounds, "packets": packets}

    def connected(form: str | None = None, relay: RtspRelay | None = None) -> Source:
        began = time.monotonic()
        more = _AT_ONCE if form else {}
        there = uri if relay is None else relay.url
        container = _connect(there, where, options | more, timeout, decoding, bounds, relay, form)
        if family == "http" and _is_file(container):
            return VideoSource(container, where, "stream", selection, first_timeout=2 * timeout + 1, **codec)
        patience = max(timeout - (time.monotonic() - began), timeout / 2)
        return StreamSource(container, where, selection, timeout=timeout, first_timeout=patience, **codec)

    if family == "rtsp" and confined:
        with ExitStack() as held:
            relay = RtspRelay(address, addresses or (address.host,), timeout, bounds)
            held.callback(relay.close)
            try:
                source = connected(relay=relay)
            except PerceptionError:
                if relay.refused:
                    raise SourceError(relay.refused, redact(where)) from None
                raise
            held.pop_all()
        return source
    try:
        return connected()
    except StillPictureError as error:
        if family != "http" or confined:  # whoever chose the address may send each request elsewhere
            raise
        from perception.sources.snapshots import SnapshotSource

        log.info("%s; it is requested repeatedly, like a camera's snapshots", error)
        return SnapshotSource(uri, selection, options, timeout=timeout, fps=fps, bounds=bounds)
    except UnreadableError as error:
        if family != "http":
            raise
        # Cheap cameras send Motion JPEG with no boundary before the first part, or call it image/jpg: their pictures
        # can be found by their own first and last bytes.
        try:
            return connected("mjpeg")
        except TooLargeError:
            raise
        except SourceError:
            bounds.check(redact(where))
            raise error from None


def _is_file(container: av.container.InputContainer) -> bool:
    """Return whether its end is known: a duration, or a length in bytes."""
    name = container.format.name
    if container.duration or name in PLAYLISTS:  # the length of a playlist is not that of what it names
        return bool(container.duration)
    # Cameras that send Motion JPEG give any length, because some clients ask for one.
    return name != "mpjpeg" and container.size > 0


def _connect(
    uri: str,
    where: str,
    options: dict[str, str],
    timeout: float,
    decoding: str,
    bounds: Bounds,
    relay: RtspRelay | None = None,
    form: str | None = None,
) -> av.container.InputContainer:
    """Open in a thread of its own: looking up a host name cannot be interrupted and may outlast any timeout."""
    result: list[av.container.InputContainer | PerceptionError] = []
    finished = threading.Event()
    lock = threading.Lock()
    abandoned = False

    def work() -> None:
        try:
            container = open_container(uri, where, options, timeout, decoding=decoding, bounds=bounds, format=form)
        except PerceptionError as error:
            result.append(error)
        else:
            with lock:
                if abandoned:
                    container.close()
                else:
                    result.append(container)
        finally:
            finished.set()

    bounds.check(redact(where))
    bounds.start(work, "connect")
    # The connection and the description each have the whole timeout.
    with bounds.waking(finished.set):
        answered = finished.wait(2 * timeout + 1)
    with lock:
        abandoned = not result
    if not result:
        if relay is not None:
            relay.close()  # which ends the thread too
        bounds.check(redact(where))
        raise SourceError("connecting failed" if answered else f"no answer in {timeout:g} s", redact(where))
    if isinstance(result[0], PerceptionError):
        raise result[0]
    return result[0]


class StreamSource(LiveSource):
    """A live stream: a thread decodes as frames arrive and keeps the newest.

    Args:
        container: what to read; closed with the source.
        uri: what it is called.
        selection: which frames.
        timeout: seconds to wait for each read.
        first_timeout: seconds to wait for the first frame.
        threads, deinterlace: see ``Decoder``.
        bounds: what it is held to.
        packets: is given them as they are read.

    Raises:
        UnreadableError: it ends before anything can be decoded.
        SourceError: nothing can be decoded within ``first_timeout``.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        uri: str,
        selection: Selection,
        *,
        timeout: float = 10.0,
        first_timeout: float | None = None,
        threads: int = 0,
        deinterlace: bool = True,
        bounds: Bounds | None = None,
        packets: PacketRing | None = None,
    ) -> None:
        super().__init__()
        bounds = bounds or Bounds()
        self._select = selection
        # The decoder has its own read timeout; this one is for a decoder that gets data and makes no frame of it.
        self._timeout = 2 * timeout + 1
        # Live playlists bring seconds at once, and what a GPU decodes takes nothing from others.
        thins = container.format.name not in PLAYLISTS and not video_stream(container, uri).codec_context.is_hwaccel
        self._thinner = Thinner(lambda: self._reader.passed()) if thins else None
        self._decoder = decoder = Decoder(
            container, uri, threads=threads, deinterlace=deinterlace, network=True, live=True, bounds=bounds,
            packets=packets, thinner=self._thinner,
        )  # fmt: skip
        self._present = Presenter(decoder.where, bounds)
        self._first_size = 0, 0
        self._opened = threading.Event()
        self._reader = LatestReader(self._produce, decoder.where, bounds)
        with bounds.waking(self._opened.set):
            opened = self._opened.wait(timeout if first_timeout is None else first_timeout)
        if bounds.cancelled.is_set() or not opened:
            self._interrupt()
            bounds.check(decoder.where)
            raise SourceError(f"no picture in {timeout:g} s: {decoder.missing()}", decoder.where)
        if not any(self._first_size):
            self._reader.take()  # raises what ended the thread
            raise UnreadableError("the stream ended before its first frame", decoder.where)
        self.info = SourceInfo(
            uri=redact(uri),
            kind="stream",
            width=self._first_size[0],
            height=self._first_size[1],
            fps=decoder.fps,
            time_base=decoder.time_base,
            live=True,
            start=selection.start,
            duration=selection.duration,
            every=selection.every,
        )

    @property
    def thinner(self) -> Thinner | None:
        return self._thinner

    def _produce(self, stopping: threading.Event) -> Iterator[Frame | None]:
        """Runs in the reader thread, which alone uses the decoder."""
        decoder, thinner = self._decoder, self._thinner
        try:
            for chosen in selected(self._decoded(stopping), self._select):
                if chosen is None or not (thinner is None or thinner.takes(bool(chosen[2].key_frame))):
                    yield None
                    continue
                index, seconds, picture = chosen
                planes, image = self._present(picture, decoder.sample_aspect_ratio)
                yield Frame(
                    image,
                    index=index,
                    time=seconds,
                    source=decoder.where,
                    pts=picture.pts,
                    time_base=decoder.time_base,
                    planes=planes,
                    arrived=time.monotonic(),
                )
        finally:
            decoder.close()
            if thinner is not None:
                thinner.end()  # it refers to this source
            self._opened.set()

    def _decoded(self, stopping: threading.Event) -> Iterator[tuple[float, av.VideoFrame]]:
        decoder = self._decoder
        for picture in decoder.frames():
            if stopping.is_set():
                return
            if not self._opened.is_set():
                decoder.origin += decoder.seconds(picture)
                planes, image = self._present(picture, decoder.sample_aspect_ratio)
                first = Frame(image, planes=planes)
                self._first_size = first.width, first.height
                self._opened.set()
            self.corrupt = decoder.corrupt
            yield decoder.seconds(picture), picture

    def _interrupt(self) -> None:
        super()._interrupt()
        self._decoder.abandon()
