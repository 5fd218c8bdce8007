"""Routes of the streams: server-side sources, annotated once, for any number of viewers.

| route | what |
|---|---|
| ``GET /v1/streams`` | ``{"sources": [names that may be opened], "streams": [status, ...]}`` |
| ``POST /v1/streams`` | ``{"source": name, URL or camera, "model": name or null}``: status; 201, or 200 if open |
| ``GET /v1/streams/{id}`` | its status; ``DELETE`` closes it, for all viewers |
| ``GET /v1/streams/{id}/mjpeg?OPTIONS`` | ``multipart/x-mixed-replace`` of JPEG, for ``<img src>`` |
| ``WS /v1/streams/{id}/video?OPTIONS`` | H.264 in fragmented MP4, see `perception.server.viewers.fragmented_mp4` |
| ``GET /v1/streams/{id}/snapshot?OPTIONS`` | the newest annotated picture as PNG; ``annotated=false``: as it came |
| ``GET /v1/streams/{id}/rules``, ``PUT`` | lines and zones at its source, see `perception.server.routes.rules` |
| ``POST /v1/streams/{id}/recordings?OPTIONS`` | start an MP4 of the annotated stream: a recording's status, 201 |
| ``GET /v1/recordings/{id}`` | its status; ``POST /v1/recordings/{id}/stop`` finishes it; ``DELETE`` throws it away |
| ``WS /v1/wall`` | all sources that have a name at once, small, see `perception.server.viewers.wall` |
| ``GET /v1/recordings/{id}/video`` | the MP4, once it is finished (409 before) |

OPTIONS are those of `perception.server.options.QueryOptions`:
``?opacity=0.4&legend=false&classes=car,road&score=0.3``. Viewers with equal options share one drawing and one encoder.

A status is JSON::

    {"id": "3f2a9c10", "name": "street", "model": "camvid", "state": "running", "message": "",
     "width": 1280, "height": 720, "fps": 29.9, "latency_ms": {"p50": 21.0, "p95": 30.2},
     "propagated": 0.0, "result_age_ms": {"p50": 21.0, "p95": 30.2},
     "frames": 812, "dropped": 3, "reconnects": 0, "viewers": 2, "engine": "OpenVINO ...",
     "legend": [{"id": 3, "name": "road", "color": "#804080", "share": 0.31}, ...],     # in view, largest first
     "boxes": 4, "decoding": "all", "decoded": 1.0, "age_s": 0.04,
     "published": [{"kind": "rtsp", "state": "sending", "sent": 811, ...}]}

``name`` is the operator's name for the source; of an address no more than scheme, host and port, because the rest may
be secret. ``state`` is one of ``connecting, running, stalled, reconnecting, paused, ended,
failed``; ``message`` says why where
it is not ``running``, and where nothing is shown though it is. A stream that nobody watches, records or asks for is
closed after a minute.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Annotated, Any

import cv2
from fastapi import APIRouter, Path, Query, Request, Response, WebSocket
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from perception.annotate import stem
from perception.errors import PerceptionError
from perception.picture.conversions import to_bgr
from perception.publishing.target import State as PublishState
from perception.server.edge.places import client_of
from perception.server.options import Options, QueryOptions
from perception.server.problems import Busy, Conflict
from perception.server.routes.pictures import faults
from perception.server.service import Service
from perception.server.streams.state import State
from perception.server.streams.stream import Stream
from perception.server.viewers.broadcast import Broadcast
from perception.server.viewers.fragmented_mp4 import VideoSession, read_options, refuse
from perception.server.viewers.motion_jpeg import CONTENT_TYPE, MotionJpegResponse, MotionJpegSink
from perception.server.viewers.recording import State as RecordingState
from perception.server.viewers.wall import Wall

router = APIRouter()

SNAPSHOT_WAIT_S = 5.0
"""Seconds that a snapshot waits for the first frame of a stream that is being connected."""

Id = Annotated[str, Path(max_length=80)]
RecordingId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
WithOptions = Annotated[QueryOptions, Query()]


class SnapshotQuery(QueryOptions):
    """Query of a snapshot: options, and whether it is drawn at all.

    Attributes:
        annotated: draw at all.
    """

    annotated: bool = True


class NewStream(BaseModel):
    """Request to open a stream.

    Attributes:
        source: a name that the operator offers, or a URL or the number of a camera that clients may open.
        model: name of a model; None: the default one.
    """

    model_config = ConfigDict(extra="forbid")

    source: str = Field(min_length=1, max_length=2000)
    model: str | None = Field(default=None, max_length=200)


class Percentiles(BaseModel):
    """Milliseconds: the median and the 95th percentile of the latest frames."""

    p50: float
    p95: float


class LegendEntry(BaseModel):
    """A class that is in view: its id, name, colour (RGB) and part of the frame's pixels, in 0..1."""

    id: int
    name: str
    color: str
    share: float


class PublishedTo(BaseModel):
    """How a target does.

    Attributes:
        kind: the scheme of its address.
        state, message: where it stands, and why where it is not ``sending``.
        sent, dropped: frames that it was given, and that it lacks because it was away or slow.
        connections: how often it was connected to.
    """

    kind: str
    state: PublishState
    sent: int
    dropped: int
    connections: int
    message: str


class StreamStatus(BaseModel):
    """Status of a stream.

    Attributes:
        id, name, model: what it is.
        state, message: where it stands, and why where it is not ``running``.
        width, height: of its frames in pixels; 0 before the first one.
        fps: results a second, over the last three seconds.
        latency_ms: from a frame's arrival to its result.
        propagated: part of the latest results, in 0..1, that are those of an earlier frame, moved with the picture.
        result_age_ms: from the arrival of the frame that the network has seen to the result: longer where it is an
            earlier one.
        frames, dropped: results so far, and frames that came to nothing: replaced by newer ones, or too old.
        reconnects: times it was connected again.
        viewers: of all kinds, recordings included.
        engine: what runs the model.
        legend: classes in view, largest first.
        rules: by name what each rule of the source says, as in JSON Lines; empty where it has none.
        boxes: how many in the newest frame.
        published: how each target does that the operator has it published to; where they are is not told.
        decoding: which frames of the source are decoded: ``all``, ``some`` or ``key frames``.
        decoded: part of them, in 0..1.
        age_s: seconds since the newest frame came; None before the first one.
    """

    id: str
    name: str
    model: str
    state: State
    message: str
    width: int
    height: int
    fps: float
    latency_ms: Percentiles
    propagated: float
    result_age_ms: Percentiles
    frames: int
    dropped: int
    reconnects: int
    viewers: int
    engine: str
    legend: list[LegendEntry]
    rules: dict[str, dict[str, Any]]
    boxes: int
    published: list[PublishedTo]
    decoding: str
    decoded: float
    age_s: float | None


class StreamList(BaseModel):
    """Sources that are offered by name, and the streams that are open."""

    sources: list[str]
    streams: list[StreamStatus]


class RecordingStatus(BaseModel):
    """Status of a recording.

    Attributes:
        id, stream, name: what it is, of what, and the name it is downloaded by.
        state, message: where it stands, and why where it failed or stopped by itself.
        seconds, frames, bytes: how much there is.
    """

    id: str
    stream: str
    name: str
    state: RecordingState
    message: str
    seconds: float
    frames: int
    bytes: int


def _service(connection: Request | WebSocket) -> Service:
    service: Service = connection.app.state.service
    return service


@router.get("/v1/streams", summary="Streams", responses=faults())
async def list_streams(request: Request) -> StreamList:
    """Sources that can be opened by name, and the streams that are open."""
    hub = _service(request).streams
    statuses = await asyncio.to_thread(lambda: [stream.status() for stream in hub.streams])
    return StreamList(sources=hub.names, streams=[StreamStatus(**status) for status in statuses])


@router.post(
    "/v1/streams",
    summary="Open a stream",
    status_code=201,
    responses={200: {"model": StreamStatus}, **faults(404, 422)},
)
async def open_stream(request: Request, new: NewStream, response: Response) -> StreamStatus:
    """Returns at once; the stream then connects by itself, and its state tells how it goes."""
    hub = _service(request).streams
    found = await hub.check(new.source)
    stream, made = await asyncio.to_thread(hub.open, new.source, new.model, found)
    response.status_code = 201 if made else 200
    return StreamStatus(**await asyncio.to_thread(stream.status))


@router.get("/v1/streams/{id}", summary="Status of a stream", responses=faults(404, 422))
async def get_stream(request: Request, id: Id) -> StreamStatus:
    """State, statistics and legend."""
    stream = _service(request).streams.get(id)
    return StreamStatus(**await asyncio.to_thread(stream.status))


@router.delete("/v1/streams/{id}", summary="Close a stream", status_code=204, responses=faults(404, 422))
async def close_stream(request: Request, id: Id) -> None:
    """For all its viewers."""
    await asyncio.to_thread(_service(request).streams.remove, id)


@router.get(
    "/v1/streams/{id}/mjpeg",
    summary="Watch a stream as motion JPEG",
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE.partition(";")[0]: {}}}, **faults(404, 409, 422, 429)},
)
async def mjpeg(request: Request, id: Id, options: WithOptions) -> Response:
    """For `<img src>`: JPEG after JPEG until the stream ends. A viewer who is slow misses frames."""
    hub = _service(request).streams
    stream = hub.get(id)
    _check_running(stream)
    with ExitStack() as place:
        place.enter_context(hub.viewer(client_of(request)))
        viewer = Broadcast.join(stream, options.plain(), MotionJpegSink)
        place.callback(viewer.leave)
        return MotionJpegResponse(viewer, place.pop_all())


@router.websocket("/v1/streams/{id}/video")
async def video(socket: WebSocket, id: str) -> None:
    """H.264 in fragmented MP4; see `perception.server.viewers.fragmented_mp4` for what is said on the socket."""
    hub = _service(socket).streams
    await socket.accept()
    try:
        options = read_options(dict(socket.query_params))
        stream = hub.get(id)
        _check_running(stream)
        with hub.viewer(client_of(socket)):
            await VideoSession(socket, stream, options).run()
    except PerceptionError as error:
        await refuse(socket, error)


@router.websocket("/v1/wall")
async def wall(socket: WebSocket) -> None:
    """All sources that have a name, small; see `perception.server.viewers.wall` for what is said on the socket."""
    service = _service(socket)
    await socket.accept()
    try:
        with service.streams.viewer(client_of(socket)):
            await Wall(socket, service.roster).run()
    except PerceptionError as error:
        await refuse(socket, error)


@router.get(
    "/v1/streams/{id}/snapshot",
    summary="The newest picture of a stream",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **faults(404, 409, 422, 429)},
)
async def snapshot(request: Request, id: Id, query: Annotated[SnapshotQuery, Query()]) -> Response:
    """As PNG, annotated or as it came."""
    stream = _service(request).streams.get(id)
    options = query.plain()
    deadline = time.monotonic() + SNAPSHOT_WAIT_S
    while not stream.frames:
        _check_running(stream)
        if time.monotonic() > deadline:
            raise Busy(f"the stream is {stream.state}; no picture yet", 5.0)
        await asyncio.sleep(0.05)
    data = await asyncio.to_thread(_snapshot, stream, options, query.annotated)
    headers = {"Content-Disposition": f'inline; filename="{stem(stream.id)}.png"', "Cache-Control": "no-store"}
    return Response(data, media_type="image/png", headers=headers)


def _snapshot(stream: Stream, options: Options, annotated: bool) -> bytes:
    with stream.subscribe(options) as viewer:
        prediction = viewer.next(0.0, picture=annotated)
    if prediction is None:
        raise Conflict(f"the stream has {stream.state}")
    picture = prediction.picture if annotated else None
    _, data = cv2.imencode(".png", prediction.frame.image if picture is None else to_bgr(picture))
    return data.tobytes()


@router.post(
    "/v1/streams/{id}/recordings", summary="Start to record", status_code=201, responses=faults(404, 409, 422, 429)
)
async def record(request: Request, id: Id, options: WithOptions) -> RecordingStatus:
    """Records the annotated stream as MP4 until it is stopped, the stream ends, or a limit of the server is reached."""
    hub = _service(request).streams
    recording = await asyncio.to_thread(hub.recordings.start, hub.get(id), options.plain())
    return RecordingStatus(**recording.status())


@router.get("/v1/recordings/{id}", summary="Status of a recording", responses=faults(404, 422))
async def get_recording(request: Request, id: RecordingId) -> RecordingStatus:
    """State, length and size."""
    return RecordingStatus(**_service(request).streams.recordings.get(id).status())


@router.post("/v1/recordings/{id}/stop", summary="Finish a recording", responses=faults(404, 422))
async def stop_recording(request: Request, id: RecordingId) -> RecordingStatus:
    """Returns when the file is complete."""
    recording = _service(request).streams.recordings.get(id)
    await asyncio.to_thread(recording.stop)
    return RecordingStatus(**recording.status())


@router.get(
    "/v1/recordings/{id}/video",
    summary="Download a recording",
    response_class=FileResponse,
    responses={200: {"content": {"video/mp4": {}}}, **faults(404, 409, 422)},
)
async def recording_video(request: Request, id: RecordingId) -> FileResponse:
    """The MP4, once it is finished."""
    path, name = _service(request).streams.recordings.video(id)
    return FileResponse(path, media_type="video/mp4", filename=name)


@router.delete("/v1/recordings/{id}", summary="Delete a recording", status_code=204, responses=faults(404, 422))
async def delete_recording(request: Request, id: RecordingId) -> None:
    """One in progress is stopped first."""
    await asyncio.to_thread(_service(request).streams.recordings.delete, id)


def _check_running(stream: Stream) -> None:
    if stream.over:
        raise Conflict(f"the stream has {stream.state}; open it again")
