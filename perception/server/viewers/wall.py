"""The wall: all sources that have a name at once, over one WebSocket, each as one small picture that changes slowly.

Browsers give a page few connections, and a wall has many pictures: they share one. It carries

- text, once a second: ``{"type": "wall", "editable": true, "sources": [{"name": "gate", "state": "running", ...}]}``,
  in the order of the wall, see `Wall.look`;
- binary, whenever a picture is new: a byte that says how long the id of its stream is, the id, and a JPEG.

Each stream draws and encodes its small picture once, however many look, and is inferred no more often than its picture
changes where nobody looks closer. Who is slow misses pictures, and delays nobody.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from perception.errors import PerceptionError
from perception.picture.jpeg import encode_jpeg
from perception.picture.planes import Picture, Planes, size_of
from perception.server.options import Options
from perception.server.problems import Busy
from perception.server.streams.roster import Roster
from perception.server.streams.source_book import Entry
from perception.server.streams.stream import Stream
from perception.server.viewers.broadcast import Broadcast, Viewer, ViewerSink
from perception.types import Prediction

TILE_WIDTH = 384
"""Width of a small picture in pixels, at most."""

TILE_S = 0.5
"""Seconds between two small pictures of one source, at least."""

LOOK_S = 1.0
"""The sources and their states are looked at so often."""

RETRY_S = 10.0
"""Seconds until a source that could not be opened is tried again."""

_QUALITY = 75
_OPTIONS = Options(labels=False, legend=False)


class TileSink(ViewerSink[bytes]):
    """Gives small pictures as JPEG."""

    interval_s = TILE_S

    def write(self, prediction: Prediction) -> None:
        """Shrink and encode the annotated picture of a frame."""
        assert prediction.picture is not None
        self._give([encode_jpeg(shrunk(prediction.picture), _QUALITY)])


def shrunk(picture: Picture, width: int = TILE_WIDTH) -> Picture:
    """Return a picture at a width in pixels, or as it is where it is no wider; both sides are even."""
    full_width, full_height = size_of(picture)
    if full_width <= width:
        return picture
    height = max(2, 2 * round(full_height * width / full_width / 2))
    if not isinstance(picture, Planes):
        return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    half = (width // 2, height // 2)
    y, u, v = (
        np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.uint8)
        for plane, size in ((picture.y, (width, height)), (picture.u, half), (picture.v, half))
    )
    return Planes(y, u, v, picture.matrix, picture.full_range)


@dataclass
class _Tile:
    """A source as one viewer of the wall has it."""

    stream: Stream
    viewer: Viewer[bytes]
    sending: asyncio.Task[None]


class Wall:
    """One viewer of the wall, until it leaves.

    Args:
        socket: accepted.
        roster: the sources.
    """

    def __init__(self, socket: WebSocket, roster: Roster) -> None:
        self._socket = socket
        self._roster = roster
        self._sending = asyncio.Lock()  # a WebSocket takes one message at a time
        self._tiles: dict[str, _Tile] = {}
        self._faults: dict[str, tuple[float, str]] = {}  # until when, and why a source cannot be opened

    async def run(self) -> None:
        """Send until there is nobody to send it to."""
        listening = asyncio.create_task(self._listen())
        showing = asyncio.create_task(self._show())
        try:
            await asyncio.wait((listening, showing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (listening, showing):
                task.cancel()
            results = await asyncio.gather(listening, showing, return_exceptions=True)
            for name in [*self._tiles]:
                self._drop(name)
        for error in results:
            if isinstance(error, Exception) and not isinstance(error, (RuntimeError, WebSocketDisconnect)):
                raise error

    async def _listen(self) -> None:
        while (await self._socket.receive())["type"] != "websocket.disconnect":
            await asyncio.sleep(0.2)  # nothing is to be said; who says something all the same is heard slowly

    async def _show(self) -> None:
        names = self._roster.entries().items()
        await self._say([self._without_stream(name, entry, "connecting") for name, entry in names])
        while True:
            found, rows = await asyncio.to_thread(self.look)
            for name in [name for name, tile in self._tiles.items() if found.get(name) is not tile.stream]:
                self._drop(name)
            for name, stream in found.items():
                if name not in self._tiles and not stream.over:
                    self._join(name, stream)
            await self._say(rows)
            await asyncio.sleep(LOOK_S)

    async def _say(self, rows: list[dict[str, Any]]) -> None:
        said = {"type": "wall", "editable": self._roster.editable, "sources": rows}
        async with self._sending:
            await self._socket.send_text(json.dumps(said))

    def look(self) -> tuple[dict[str, Stream], list[dict[str, Any]]]:
        """Open what is not open. Takes as long as loading a model.

        Returns:
            the streams by their sources' names, and what to say of each source: its ``name``, ``id`` of its stream or
            None, ``state``, ``message``, ``paused``, ``added``, ``fps``, ``boxes`` and what its ``rules`` say.
        """
        streams: dict[str, Stream] = {}
        rows = []
        for name, entry in self._roster.entries().items():
            stream = self._stream(name)
            row = self._without_stream(name, entry, "failed")
            if stream is not None:
                streams[name] = stream
                status = stream.status()
                row |= {key: status[key] for key in ("id", "state", "message", "fps", "boxes", "rules")}
            rows.append(row)
        return streams, rows

    def _stream(self, name: str) -> Stream | None:
        stream = self._roster.stream(name)
        until, _ = self._faults.get(name, (0.0, ""))
        if stream is not None or time.monotonic() < until:
            return stream
        try:
            stream = self._roster.open(name)
            self._faults.pop(name, None)
        except PerceptionError as error:
            # One that lacks a place waits shorter than one that is wrong.
            self._faults[name] = (time.monotonic() + (LOOK_S if isinstance(error, Busy) else RETRY_S), str(error))
        return stream

    def _without_stream(self, name: str, entry: Entry, state: str) -> dict[str, Any]:
        paused = entry.source.paused
        row = {"name": name, "added": entry.added, "paused": paused, "id": None, "state": "paused" if paused else state}
        return row | {"message": self._faults.get(name, (0.0, ""))[1], "fps": 0.0, "boxes": 0, "rules": {}}

    def _join(self, name: str, stream: Stream) -> None:
        with suppress(PerceptionError):  # it is being drawn in too many ways; its state is shown
            viewer = Broadcast.join(stream, _OPTIONS, TileSink)
            self._tiles[name] = _Tile(stream, viewer, asyncio.create_task(self._send(stream.id, viewer)))

    def _drop(self, name: str) -> None:
        tile = self._tiles.pop(name)
        tile.sending.cancel()
        tile.viewer.leave()

    async def _send(self, id: str, viewer: Viewer[bytes]) -> None:
        head = bytes([len(id)]) + id.encode()
        with suppress(RuntimeError, WebSocketDisconnect):  # the client has left
            while not viewer.over:
                picture = await viewer.next(LOOK_S)
                if picture is not None:
                    async with self._sending:
                        await self._socket.send_bytes(head + picture)
