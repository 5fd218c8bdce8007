"""From decoded frames to pictures as a screen would show them: square pixels, standard dynamic range."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import av.error

from perception.common.bounds import Bounds
from perception.picture.decoder_frames import Converter
from perception.sources.base import log
from perception.types import U8, Planes

_HDR = {16: "PQ", 18: "HLG"}  # values of FFmpeg's AVColorTransferCharacteristic
_SDR = (
    "scale=out_transfer=bt709:out_primaries=bt709:out_color_matrix=bt709:out_range=tv:intent=relative_colorimetric,"
    "format=yuv420p"
)


class Presenter:
    """Turns the frames of one stream into ``Planes`` or BGR.

    HDR (PQ, HLG) is brought to BT.709 by FFmpeg's swscale: reference white (203 cd/m2, ITU-R BT.2408) becomes white,
    and what is brighter is cut off there.

    Args:
        where: what to name in messages.
        bounds: what the pictures are held to, as they are shown.
    """

    def __init__(self, where: str, bounds: Bounds | None = None) -> None:
        self._where = where
        self._bounds = bounds or Bounds()
        self._converters: dict[Fraction, Converter] = {}
        self._graph: tuple[Any, tuple[Any, ...]] | None = None
        self._told = False
        self._given_up = False

    def __call__(self, frame: av.VideoFrame, sample_aspect_ratio: Fraction) -> tuple[Planes | None, U8 | None]:
        """Convert ``frame`` to planes or to uint8 ``[H, W, 3]`` BGR; the other one is None.

        Raises:
            SourceError: it is too large.
        """
        convert = self._converters.get(sample_aspect_ratio)
        if convert is None:
            if len(self._converters) > 8:
                self._converters.clear()
            convert = self._converters[sample_aspect_ratio] = Converter(sample_aspect_ratio, self._bounds, self._where)
        self._bounds.check_size(frame.width, frame.height, self._where)
        transfer = int(frame.color_trc or 0)
        return convert(self._to_sdr(frame, transfer) if transfer in _HDR and not self._given_up else frame)

    def _to_sdr(self, frame: av.VideoFrame, transfer: int) -> av.VideoFrame:
        key = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if not self._told:
            self._told = True
            log.info("%s: HDR (%s) is shown as SDR", self._where, _HDR[transfer])
        try:
            if self._graph is None or self._graph[1] != key:
                self._graph = _graph(frame), key
            self._graph[0].vpush(frame)
            return self._graph[0].vpull()
        except (av.error.FFmpegError, ValueError) as error:
            log.warning(
                "%s: HDR (%s) is not tone-mapped, colours are washed out: %s", self._where, _HDR[transfer], error
            )
            self._given_up, self._graph = True, None
            return frame


def _graph(frame: av.VideoFrame) -> Any:
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/90000"
        f":colorspace={int(frame.colorspace)}:range={int(frame.color_range)}",
    )
    last = source
    for step in _SDR.split(","):
        name, _, options = step.partition("=")
        following = graph.add(name, options)
        last.link_to(following)
        last = following
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph
