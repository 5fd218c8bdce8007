"""Network streams. A live one keeps its newest frame and counts what it drops; a finite one drops nothing.

An ``http(s)`` address whose container tells a duration is a file that happens to lie elsewhere: it is read in order,
as fast as it is asked for, and ``start`` may jump. All else is live, and its time starts at 0 with its first frame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import av

from perception.errors import PerceptionError, SourceError
from perception.picture.decoder_frames import Converter
from perception.sources.base import Selection, Source
from perception.sources.decode import Decoder, local_formats, open_container
from perception.sources.latest import LatestReader, LiveSource, selected
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


def open_stream(
    uri: str,
    selection: Selection,
    *,
    timeout: float = 10.0,
    transport: str = "tcp",
    decoding: str = "auto",
    confined: bool = False,
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
        confined: follow no redirects and read no playlists of ``http(s)://``.
        threads, deinterlace: see ``Decoder``.

    Raises:
        SourceError: no answer in time, refused, or no video in it.
    """
    scheme = urlsplit(uri).scheme.lower()
    family = scheme if scheme == "udp" else scheme.removesuffix("s")
    microseconds = str(int(timeout * 1e6))
    options = {"protocol_whitelist": _PROTOCOLS[family], "rw_timeout": microseconds}
    if family == "rtsp":
        options |= {"rtsp_transport": transport, "timeout": microseconds}
    if family == "http" and confined:
        options |= {"max_redirects": "0", "format_whitelist": local_formats()}
    if family != "http":
        options["fflags"] = "nobuffer"  # else FFmpeg shows what it gathered while probing, seconds late

    container = _connect(uri, options, timeout, decoding)
    try:
        if family == "http" and container.duration:
            return VideoSource(container, uri, "stream", selection, threads=threads, deinterlace=deinterlace)
        return StreamSource(container, uri, selection, timeout=timeout, threads=threads, deinterlace=deinterlace)
    except BaseException:
        container.close()
        raise


def _connect(uri: str, options: dict[str, str], timeout: float, decoding: str) -> av.container.InputContainer:
    """Open in a thread of its own: looking up a host name cannot be interrupted and may outlast any timeout."""
    result: list[av.container.InputContainer | PerceptionError] = []
    finished = threading.Event()
    abandoned = threading.Event()

    def work() -> None:
        try:
            container = open_container(uri, uri, options, timeout, decoding=decoding)
        except PerceptionError as error:
            result.append(error)
        else:
            result.append(container)
            if abandoned.is_set():
                container.close()
        finished.set()

    threading.Thread(target=work, name="connect", daemon=True).start()
    # The connection and the description each have the whole timeout.
    if not finished.wait(2 * timeout + 1):
        abandoned.set()
        raise SourceError(f"no answer in {timeout:g} s", redact(uri))
    if not result:
        raise SourceError("connecting failed", redact(uri))
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
    ) -> None:
        super().__init__()
        self._select = selection
        # The decoder has its own read timeout; this one is for a decoder that gets data and makes no frame of it.
        self._timeout = 2 * timeout + 1
        self._decoder = decoder = Decoder(container, uri, threads=threads, deinterlace=deinterlace, network=True)
        self._convert = Converter(decoder.stream.sample_aspect_ratio)
        self._pictures = decoder.frames()
        first = next(self._pictures, None)
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
        self._reader = LatestReader(self._produce, self.info.uri)

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
