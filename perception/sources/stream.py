"""Network streams. A live one keeps its newest frame and counts what it drops; a finite one drops nothing.

An ``http(s)`` address whose container tells a duration is a file that happens to lie elsewhere: it is read in order,
as fast as it is asked for, and ``start`` may jump. All else is live, and its time starts at 0 with its first frame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import av

from perception.common.bounds import Bounds
from perception.errors import PerceptionError, SourceError, UsageError
from perception.picture.decoder_frames import Converter
from perception.sources.address import Address
from perception.sources.base import Selection, Source
from perception.sources.decode import Decoder, local_formats, open_container
from perception.sources.latest import LatestReader, LiveSource, selected
from perception.sources.relay import RtspRelay
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
    if family != "http":
        options["fflags"] = "nobuffer"  # else FFmpeg shows what it gathered while probing, seconds late

    with ExitStack() as held:
        relay: RtspRelay | None = None
        if family == "rtsp" and confined:
            relay = RtspRelay(address, addresses or (address.host,), timeout, bounds)
            held.callback(relay.close)
            uri = relay.url
        try:
            container = _connect(uri, where, options, timeout, decoding, bounds, relay)
            held.callback(container.close)
            codec: dict[str, Any] = {"threads": threads, "deinterlace": deinterlace, "bounds": bounds}
            source: Source
            if family == "http" and container.duration:
                source = VideoSource(container, where, "stream", selection, **codec)
            else:
                source = StreamSource(container, where, selection, timeout=timeout, **codec)
        except PerceptionError:
            if relay is not None and relay.refused:
                raise SourceError(relay.refused, redact(where)) from None
            raise
        held.pop_all()
    return source


def _connect(
    uri: str,
    where: str,
    options: dict[str, str],
    timeout: float,
    decoding: str,
    bounds: Bounds,
    relay: RtspRelay | None,
) -> av.container.InputContainer:
    """Open in a thread of its own: looking up a host name cannot be interrupted and may outlast any timeout."""
    result: list[av.container.InputContainer | PerceptionError] = []
    finished = threading.Event()
    lock = threading.Lock()
    abandoned = False

    def work() -> None:
        try:
            container = open_container(uri, where, options, timeout, decoding=decoding, bounds=bounds)
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

    Raises:
        SourceError: nothing can be decoded within ``timeout``.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        uri: str,
        selection: Selection,
        *,
        timeout: float = 10.0,
        threads: int = 0,
        deinterlace: bool = True,
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__()
        bounds = bounds or Bounds()
        self._select = selection
        # The decoder has its own read timeout; this one is for a decoder that gets data and makes no frame of it.
        self._timeout = 2 * timeout + 1
        self._decoder = decoder = Decoder(
            container, uri, threads=threads, deinterlace=deinterlace, network=True, bounds=bounds
        )
        self._convert = Converter(decoder.stream.sample_aspect_ratio, bounds, decoder.where)
        self._pictures = decoder.frames()
        decoder.deadline = time.monotonic() + self._timeout
        first = next(self._pictures, None)
        decoder.deadline = None
        if first is None:
            raise SourceError("the stream ended before its first frame", decoder.where)
        decoder.origin += decoder.seconds(first)
        planes, image = self._convert(first)
        probe = Frame(image, planes=planes)
        self.info = SourceInfo(
            uri=redact(uri),
            kind="stream",
            width=probe.width,
            height=probe.height,
            fps=decoder.fps,
            time_base=decoder.time_base,
            live=True,
            start=selection.start,
            duration=selection.duration,
            every=selection.every,
        )
        self._first = first
        self._reader = LatestReader(self._produce, self.info.uri, bounds)

    def _produce(self, stopping: threading.Event) -> Iterator[Frame | None]:
        """Runs in the reader thread, which from here on alone uses the decoder."""
        try:
            for chosen in selected(self._decoded(stopping), self._select):
                if chosen is None:
                    yield None
                    continue
                index, seconds, picture = chosen
                planes, image = self._convert(picture)
                yield Frame(
                    image,
                    index=index,
                    time=seconds,
                    source=self.info.uri,
                    pts=picture.pts,
                    time_base=self._decoder.time_base,
                    planes=planes,
                    arrived=time.monotonic(),
                )
        finally:
            self._pictures = iter(())
            self._decoder.close()

    def _decoded(self, stopping: threading.Event) -> Iterator[tuple[float, av.VideoFrame]]:
        picture: av.VideoFrame | None = self._first
        del self._first
        while picture is not None and not stopping.is_set():
            self.corrupt = self._decoder.corrupt
            yield self._decoder.seconds(picture), picture
            picture = next(self._pictures, None)
