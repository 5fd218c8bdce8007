"""Motion JPEG: what every browser shows in an ``<img>``. Each frame is encoded once, whatever the number of viewers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from perception.picture.jpeg import encode_jpeg
from perception.server.viewers.broadcast import Viewer, ViewerSink
from perception.types import Prediction

BOUNDARY = "perception-frame"
CONTENT_TYPE = f"multipart/x-mixed-replace; boundary={BOUNDARY}"

REPEAT_S = 2.0
"""Seconds without a new frame after which the last one is sent again, which notices a viewer who has left."""


class MotionJpegSink(ViewerSink[bytes]):
    """Gives JPEG files, each with the headers of its part and the boundary that follows it."""

    def write(self, prediction: Prediction) -> None:
        """Encode the annotated picture of a frame."""
        assert prediction.picture is not None
        data = encode_jpeg(prediction.picture)
        head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
        # The boundary comes at once and not with the next frame: browsers show a frame when they have seen its end.
        self._give([b"".join((head.encode(), data, f"\r\n--{BOUNDARY}\r\n".encode()))])


class MotionJpegResponse(StreamingResponse):
    """The response for one viewer, until the stream ends or the viewer leaves.

    Args:
        viewer: where the frames come from.
        place: closed when it is over.
    """

    def __init__(self, viewer: Viewer[bytes], place: ExitStack) -> None:
        self._viewer = viewer
        self._place = place
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._parts(), media_type=CONTENT_TYPE, headers=headers)

    async def _parts(self) -> AsyncIterator[bytes]:
        yield f"--{BOUNDARY}\r\n".encode()
        last = b""
        while not self._viewer.over:
            part = await self._viewer.next(REPEAT_S)
            if part is not None:
                yield (last := part)
            elif last and not self._viewer.over:
                yield last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Here and not in the generator, which does not run at all where the viewer has left by now.
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._place.close()
