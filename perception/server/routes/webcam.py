"""``WS /v1/webcam``: pictures of the browser's own camera in, results out, drawn by the browser over its own video.

The client sends, in any order:

- a text message: JSON with any of the fields of `WebcamSettings`. They hold from the next frame on, and those left
  out stay as they are; where their model must be loaded first, all of them hold from then on, and frames are answered
  as before until then. The answer is a text message ``{"type": "ready", ...}`` that says what the model gives: its
  name, engine, tasks, input size, and for each head the names and colours (RGB) of the classes.
- a binary message: a frame. A u32 (little-endian) that numbers it, then a JPEG.

The server answers each frame with exactly one message: binary, see `perception.server.viewers.messages`, or text
``{"type": "error", "frame": 7, "error": "one line"}`` (with ``retry_after_s`` where the server is busy), or
``{"type": "dropped", "frame": 7}`` where a newer frame took its place.

Where a stage of the operator's fails, results come without stages, and text ``{"type": "problem", "problem": "one
line"}`` says so beside them; with an empty line once all is well again.

After an error the connection goes on; only a client that floods it, or keeps silent for `IDLE_S`, is hung up on.

The client keeps one frame in flight, or two where the second one is sent to arrive when the engine is about to be
free; what it sends beyond that waits in the network. Messages should not be deflated (uvicorn's
``ws_per_message_deflate=False``): JPEG and runs do not get smaller by it, and it costs a millisecond each way.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import time
import uuid
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError

from perception.errors import PerceptionError, UsageError
from perception.server.edge.places import client_of
from perception.server.live_stages import LiveStages
from perception.server.options import Options
from perception.server.problems import Busy, TooLarge
from perception.server.viewers.messages import pack
from perception.types import U8, Frame, Prediction

if TYPE_CHECKING:
    from perception.card import ModelCard
    from perception.model import Inference, Model
    from perception.server.edge.budget import Hold
    from perception.server.inference.scheduler import Scheduler
    from perception.server.service import Service

FRAME_BYTES = 4_000_000
"""Most bytes of a frame: a JPEG of 12 megapixels in good quality."""

SETTINGS_BYTES = 64_000
IDLE_S = 120.0
"""A client that says nothing for so long is hung up on; the page connects again when it has something to say."""

IN_FLIGHT = 2
"""Frames of a connection that are worked on at once."""

ERRORS_IN_A_ROW = 20
"""A client of which so many messages in a row are no good is hung up on."""

_POLICY, _TRY_AGAIN = 1008, 1013
_NUMBER = struct.Struct("<I")

_log = logging.getLogger("perception")

router = APIRouter()


class WebcamSettings(Options):
    """Settings of a client: `perception.server.options.Options`, of which the drawing is the browser's own, and more.

    Attributes:
        model: name of the model; None: the server's own choice.
        view: results hold boxes and class maps, and no outlines.
        map_cells: cells of the class map's longest side; 0: no class map.
    """

    model: str | None = Field(None, max_length=200)
    view: Literal["boxes"] = "boxes"
    map_cells: int = Field(320, ge=0, le=1024)


def parse_settings(text: str, settings: WebcamSettings) -> WebcamSettings:
    """``settings`` with the fields changed that a text message names; null is a field's default.

    Raises:
        UsageError: not JSON, an unknown field, or a value out of range.
    """
    if len(text) > SETTINGS_BYTES:
        raise UsageError(f"settings of {len(text)} characters are too long; {SETTINGS_BYTES} are allowed")
    try:
        changes = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("a text message must be JSON") from None
    if not isinstance(changes, dict):
        raise UsageError("a text message must be a JSON object of settings")
    try:
        merged = {**settings.model_dump(), **changes}
        return WebcamSettings.model_validate({name: value for name, value in merged.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise UsageError(f"{where[:100]}: {first['msg']}") from None


def file_of(message: bytes) -> bytes:
    """The picture of a binary message, as a file.

    Raises:
        UsageError: no picture at all.
        TooLarge: more bytes than `FRAME_BYTES`.
    """
    if len(message) > FRAME_BYTES:
        raise TooLarge(f"a frame of {len(message)} bytes is too large; at most {FRAME_BYTES}")
    if len(message) <= _NUMBER.size:
        raise UsageError("a binary message must be a frame's number (u32) and a JPEG")
    return message[_NUMBER.size :]


def describe(model: Model, name: str) -> dict[str, Any]:
    """Describe a model as a client must know it to draw its results; plain JSON."""
    card: ModelCard = model.card
    described: dict[str, Any] = {
        "type": "ready",
        "model": name,
        "engine": model.engine.description,
        "size": list(model.size),
        "tasks": card.tasks,
        "ignored": [],
        "unknown": False,
        "segmentation": [],
        "detection": [],
        "classification": [],
    }
    if card.segmentation is not None:
        described["ignored"] = card.segmentation.ignored
        described["unknown"] = card.segmentation.unknown is not None
        described["segmentation"] = [{"name": c.name, "color": list(c.color)} for c in card.segmentation.classes]
    if card.detection is not None:
        described["detection"] = [{"name": c.name, "color": list(c.color)} for c in card.detection.classes]
        described["score"] = card.detection.score_threshold
        described["iou"] = card.detection.iou_threshold
    if card.classification is not None:
        described["classification"] = [{"name": c.name, "color": list(c.color)} for c in card.classification.classes]
    return described


@router.websocket("/v1/webcam")
async def webcam(socket: WebSocket) -> None:
    """Results for a client's pictures; see `perception.server.routes.webcam` for what is said on the socket."""
    await socket.accept()
    service: Service = socket.app.state.service
    try:
        place = service.webcams.take(client_of(socket))
    except Busy as busy:
        await socket.close(_TRY_AGAIN, busy.message)
        return
    with place, service.metrics.viewer("webcam"):
        session = Session(socket, service)
        try:
            await session.run()
        finally:
            await session.close()


@dataclass(frozen=True)
class _Running:
    """The model and the stages that answer frames under the client's present settings."""

    scheduler: Scheduler
    model: Model
    stages: LiveStages | None
    tracked: tuple[object, ...]

    def interpret(self, inference: Inference) -> Prediction:
        prediction = self.model.interpret(inference)
        return prediction if self.stages is None else self.stages.apply(prediction)


class Session:
    """One client of the socket: its settings, its model, its stages, its frames in flight."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self._socket = socket
        self._service = service
        self._address = client_of(socket)
        self._client = f"webcam {uuid.uuid4().hex[:8]}"
        self._settings = WebcamSettings.model_validate({})
        self._running: _Running | None = None
        self._wanted: WebcamSettings | None = None  # settings whose model is being loaded
        self._loading: asyncio.Task[None] | None = None
        self._problem = ""
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._sending = asyncio.Lock()
        self._opening = asyncio.Lock()
        self._answers: set[asyncio.Task[None]] = set()
        self._bad = 0
        self._began = time.monotonic()
        self._closed = False

    async def run(self) -> None:
        """Answer messages until the client leaves, falls silent or sends too much that is no good."""
        while self._bad < ERRORS_IN_A_ROW:
            try:
                message = await asyncio.wait_for(self._socket.receive(), IDLE_S)
            except asyncio.TimeoutError:
                await self._hang_up(_TRY_AGAIN, f"silent for {IDLE_S:.0f} s")
                return
            arrived = time.perf_counter()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                await self._configure(message["text"])
            else:
                await self._slots.acquire()  # a client that does not wait for answers is not read from
                answer = asyncio.create_task(self._answer(message.get("bytes") or b"", arrived))
                self._answers.add(answer)
                answer.add_done_callback(self._answered)
        await self._hang_up(_POLICY, f"{ERRORS_IN_A_ROW} messages in a row that are no good")

    async def close(self) -> None:
        """Take back what is in flight."""
        self._closed = True
        tasks = [*self._answers, *([] if self._loading is None else [self._loading])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _answered(self, answer: asyncio.Task[None]) -> None:
        self._answers.discard(answer)
        self._slots.release()

    async def _configure(self, text: str) -> None:
        try:
            settings = parse_settings(text, self._wanted or self._settings)
        except PerceptionError as error:
            await self._refuse(error)
            return
        if self._running is None or (settings.model or self._service.models.default) in self._service.models.loaded():
            self._wanted = None
            await self._change(settings)
            return
        self._wanted = settings
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load())

    async def _load(self) -> None:
        """Change to the settings that are wanted, which may be others by the time that a model is loaded."""
        while (wanted := self._wanted) is not None:
            await self._change(wanted, loading=True)
            if self._wanted is wanted:
                self._wanted = None

    async def _change(self, settings: WebcamSettings, loading: bool = False) -> None:
        try:
            running = await asyncio.to_thread(self._open, settings)
        except PerceptionError as error:
            if not loading or self._wanted is settings:
                await self._refuse(error)
            return
        if loading and self._wanted is not settings:
            return
        self._settings, self._running = settings, running
        self._bad = 0
        await self._send_json(describe(running.model, settings.model or self._service.models.default))

    def _open(self, settings: WebcamSettings) -> _Running:
        """The model that is wanted, loaded if need be, with the client's options; stages stay as long as it does."""
        scheduler = self._service.models.scheduler(settings.model)
        own, before = self._service.stages, self._running
        model = settings.applied_to(scheduler.model, own)
        tracked = settings.interpretation(model.card, own)[1:]
        if before is not None and before.scheduler is scheduler and before.tracked == tracked:
            return _Running(scheduler, model, before.stages, tracked)
        found = settings.stages(model.card, own)
        stages = LiveStages(model.card, found, self._client) if found else None
        return _Running(scheduler, model, stages, tracked)

    async def _answer(self, message: bytes, arrived: float) -> None:
        number = _NUMBER.unpack_from(message)[0] if len(message) >= _NUMBER.size else None
        try:
            running = await self._opened()
            begin = partial(self._begin, running, message, number or 0, arrived)
            future = await self._service.pictures.with_room(begin, self._address, Future.cancel)
            try:
                prediction, answer = await asyncio.wrap_future(future)
            except asyncio.CancelledError:
                if self._closed:
                    raise
                self._service.metrics.dropped(1, "webcam")
                await self._send_json({"type": "dropped", "frame": number})
                return
        except PerceptionError as error:
            await self._refuse(error, number)
            return
        except Exception:
            _log.exception("webcam")
            await self._refuse(PerceptionError("internal error; see the server's log"), number)
            return
        self._bad = 0
        self._service.metrics.frame_done(prediction, "webcam")
        async with self._sending:
            with suppress(RuntimeError, WebSocketDisconnect):  # the client has left
                await self._socket.send_bytes(answer)
        problem = "" if running.stages is None else running.stages.problem
        if bool(problem) != bool(self._problem):
            self._problem = problem
            await self._send_json({"type": "problem", "problem": f"{problem}; shown without stages" if problem else ""})

    async def _opened(self) -> _Running:
        """The model and stages in use; opened by the first frame that comes before any settings."""
        async with self._opening:
            if self._running is None:
                self._running = await asyncio.to_thread(self._open, self._settings)
            return self._running

    def _begin(
        self, running: _Running, message: bytes, number: int, arrived: float, hold: Hold | None
    ) -> Future[tuple[Prediction, bytes]]:
        """Decode a frame and have it inferred; the thread that does so makes the answer, too."""
        taken, image = self._service.pictures.decode(file_of(message), self._address, hold)
        with taken:
            future = self._infer(running, image, number, arrived)
            taken.until(future)
        return future

    def _infer(self, running: _Running, image: U8, number: int, arrived: float) -> Future[tuple[Prediction, bytes]]:
        if max(image.shape) > 0xFFFF:
            raise TooLarge(f"a picture of {image.shape[1]}x{image.shape[0]} is too large; at most 65535 pixels a side")
        decoded = time.perf_counter()
        since = time.monotonic() - (decoded - arrived)
        frame = Frame(image, index=number, source=self._client, arrived=since, time=since - self._began)

        def finish(inference: Inference) -> tuple[Prediction, bytes]:
            prediction = running.interpret(inference)
            ready = time.perf_counter()
            known = sum(prediction.timings.values())
            timings = {
                "decode": 1e3 * (decoded - arrived),
                "wait": max(1e3 * (ready - decoded) - known, 0.0),
                "server": 1e3 * (ready - arrived),
            }
            return prediction, pack(number, prediction, timings, longest=self._settings.map_cells)

        return running.scheduler.infer_then(frame, finish, client=self._client, live=True)

    async def _refuse(self, error: PerceptionError, number: int | None = None) -> None:
        answer: dict[str, Any] = {"type": "error", "frame": number, "error": str(error)}
        if isinstance(error, Busy):
            answer["retry_after_s"] = error.retry_after_s
        else:
            self._bad += 1
        await self._send_json(answer)

    async def _send_json(self, answer: dict[str, Any]) -> None:
        async with self._sending:
            with suppress(RuntimeError, WebSocketDisconnect):
                await self._socket.send_text(json.dumps(answer))

    async def _hang_up(self, code: int, reason: str) -> None:
        with suppress(RuntimeError, WebSocketDisconnect):
            await self._socket.close(code, reason)
