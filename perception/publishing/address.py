"""Addresses that video is published to: which of FFmpeg's muxers and protocols each is for.

===========================  ==================================================================
``rtsp://``, ``rtsps://``    RTSP, as a client that announces and records (MediaMTX, go2rtc)
``rtmp://``, ``rtmps://``    RTMP (MediaMTX, nginx-rtmp, video platforms)
``srt://``                   MPEG-TS over SRT, where FFmpeg was built with it
``udp://``                   MPEG-TS over UDP, to one host or to a multicast group
``whip://``, ``whips://``    WebRTC, by WHIP over HTTP or HTTPS
``hls:folder/``              a playlist, ``index.m3u8``, and its segments in a folder
===========================  ==================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perception.common.objects import is_object
from perception.errors import SourceError, UsageError
from perception.sources.address import Address
from perception.sources.uri import redact

PLAYLIST = "index.m3u8"
"""The name of the playlist in a folder of HLS."""

SEGMENT_S = 2
"""Seconds of a segment of HLS."""

SEGMENTS = "segment-[0-9]*.ts"
"""The names of the segments in a folder of HLS, as a pattern."""

_SEGMENT = "segment-%06d.ts"
_LIVE_SEGMENTS = 6
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://")
_HLS = "hls:"


@dataclass(frozen=True)
class _Way:
    """A muxer and its options; ``scheme``: what FFmpeg calls the protocol, where that is another word."""

    muxer: str
    options: Mapping[str, str] = field(default_factory=dict)
    scheme: str = ""


_TS = {"flush_packets": "1", "mpegts_flags": "resend_headers"}
_WAYS = {
    "rtsp": _Way("rtsp", {"rtsp_transport": "tcp"}),
    "rtsps": _Way("rtsp"),
    "rtmp": _Way("flv", {"flvflags": "no_duration_filesize", "flush_packets": "1"}),
    "rtmps": _Way("flv", {"flvflags": "no_duration_filesize", "flush_packets": "1"}),
    "srt": _Way("mpegts", _TS),
    "udp": _Way("mpegts", _TS),
    "whip": _Way("whip", scheme="http"),
    "whips": _Way("whip", scheme="https"),
}
KNOWN = ", ".join([*(f"{scheme}://" for scheme in _WAYS), "hls:folder/"])


def is_publish_address(text: str) -> bool:
    """Return whether an output is an address to publish to, or looks like one, and no file, folder or object."""
    return text.startswith(_HLS) or (_SCHEME.match(text) is not None and not is_object(text))


@dataclass(frozen=True)
class PublishAddress:
    """One place that video is published to. The address itself may be secret, and is in no message.

    Attributes:
        kind: its scheme: ``rtsp``, ``hls``.
        muxer: FFmpeg's name of the format.
        url: what FFmpeg opens; with credentials.
        shown: its name in messages, without what may be secret.
        folder: of HLS; else None.
    """

    kind: str
    muxer: str
    url: str = field(repr=False)
    shown: str
    folder: Path | None = None

    @classmethod
    def read(cls, text: str) -> PublishAddress:
        """Parse an address. Nothing is looked up or connected to.

        Raises:
            UsageError: it is none, of a kind that is not known, or of one that this FFmpeg cannot write.
        """
        if text.startswith(_HLS):
            return cls._of_folder(text)
        try:
            address = Address.read(text)
        except SourceError as error:
            raise UsageError(error.message, error.where) from None
        kind = address.scheme
        way = _WAYS.get(kind)
        if way is None:
            raise UsageError(f"cannot publish to {kind}://; known are {KNOWN}", redact(text))
        if kind == "udp" and (not address.host or address.port is None):
            raise UsageError("give the host and the port to send to: udp://host:port", redact(text))
        _check_ffmpeg(kind, way.muxer, redact(text))
        url = address.url
        if kind == "udp" and "pkt_size=" not in url:
            url += f"{'&' if '?' in url else '?'}pkt_size=1316"  # seven packets of MPEG-TS, which fit into Ethernet's
        if way.scheme:
            url = url.replace(kind, way.scheme, 1)
        return cls(kind, way.muxer, url, redact(text))

    @classmethod
    def _of_folder(cls, text: str) -> PublishAddress:
        name = text.removeprefix(_HLS)
        if not name or name.startswith("//"):
            raise UsageError("HLS is written into a folder: hls:folder/", text)
        folder = Path(name)
        if folder.exists() and not folder.is_dir():
            raise UsageError("this is a file; HLS is written into a folder: hls:folder/", folder)
        return cls("hls", "hls", str(folder.absolute() / PLAYLIST), text, folder)

    def options(self, live: bool) -> dict[str, str]:
        """Return the muxer's options.

        Args:
            live: of HLS: a playlist of the latest segments, older ones are deleted; else all are kept.
        """
        if self.folder is None:
            return dict(_WAYS[self.kind].options)
        kept = {"hls_list_size": str(_LIVE_SEGMENTS)} if live else {"hls_list_size": "0", "hls_playlist_type": "event"}
        flags = ["temp_file", "independent_segments", *(["delete_segments", "append_list"] if live else [])]
        return {
            "hls_time": str(SEGMENT_S),
            "hls_segment_filename": str(self.folder.absolute() / _SEGMENT),
            "hls_flags": "+".join(flags),
            **kept,
        }


def _check_ffmpeg(kind: str, muxer: str, shown: str) -> None:
    """Check what this build of FFmpeg has.

    Raises:
        UsageError: it lacks the muxer or the protocol.
    """
    import av
    import av.error

    lacking = "" if muxer in av.formats_available else f"the format {muxer}"
    if kind == "srt" and not lacking:
        # Builds often lack it. Nothing tells the protocols there are but opening one, here without any host.
        try:
            output = av.open("srt:", "w", format=muxer)
            output.add_stream("mpeg2video", rate=25)
            output.start_encoding()
        except av.error.ProtocolNotFoundError:
            lacking = "the protocol SRT"
        except (OSError, ValueError):
            pass  # there is no host in it
    if lacking:
        raise UsageError(
            f"FFmpeg, as PyAV {av.__version__} brings it, was built without {lacking}; publish to another of {KNOWN}",
            shown,
        )
