"""``WS /v1/webcam``: pictures of the browser's own camera in, results out, drawn by the browser over its own video.

The client sends, in any order:

- a text message: JSON with any of the fields of `WebcamSettings`. They hold from the next frame on, and those left
  out stay as they are; where their model must be loaded first, all of them hold from then on, and frames are answered
  as before until then. The answer is a text message ``{"type": "ready", ...}`` that says what the model gives: its
  name, engine, tasks, input size, and for each head the names and colours (RGB) of the classes.
- a text message ``{"draw": {"lines": [...], "zones": [...]}}``: lines and zones as in a rules file (docs/rules.md), in
  place of those before; ``{"draw": {}}`` for none. They belong to the connection. The answer is ``{"type": "drawn",
  "faults": {}}``, or ``{"type": "refused", "error": "one line", "rule": "gate"}``, after which those before still hold.
  ``faults`` says by name why some that were drawn before are left out: the model that was changed to since does not
  give what they look at. Where there are rules, "ready" has it, too.
- a binary message: a frame. A u32 (little-endian) that numbers it, then a JPEG.

The server answers each frame with exactly one message: binary, see `perception.server.viewers.messages`, or text
``{"type": "error", "frame": 7, "error": "one line"}`` (with ``retry_after_s`` where the server is busy), or
``{"type": "dropped", "frame": 7}`` where a newer frame took its place.

Where there are rules, text ``{"type": "readings", "frame": 7, "rules": {"gate": {...}}, "active": ["gate"]}`` comes
just before the result: by name what each rule says, as in JSON Lines (docs/outputs.md), and those at which something
happens.

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
import time
import uuid
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from perception.errors import PerceptionError
from perception.rules.settings import RuleError, Rules
from perception.server.edge.places import client_of
from perception.server.live_stages import LiveStages
from perception.server.problems import Busy, TooLarge, rule_of
from perception.server.rule_book import RuleBook
from perception.server.viewers.messages import pack
from perception.server.viewers.webcam_messages import (
    WebcamSettings,
    describe,
    describe_readings,
    file_of,
    number_of,
    parse_settings,
    read_drawing,
)
from perception.types import U8, Frame, Prediction

if TYPE_CHECKING:
    from perception.model import Inference, Model
    from perception.server.edge.budget import Hold
    from perception.server.inference.scheduler import Scheduler
    from perception.server.service import Service

IDLE_S = 120.0
"""A client that says nothing for so long is hung up on; the page connects again when it has something to say."""

IN_FLIGHT = 2
"""Frames of a connection that are worked on at once."""

ERRORS_IN_A_ROW = 20
"""A client of which so many messages in a row are no good is hung up on."""

_POLICY, _TRY_AGAIN = 1008, 1013

_log = logging.getLogger("perception")

router = APIRouter()


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
    stages: LiveStages
    tracked: tuple[object, ...]
    rules: RuleBook

    def interpret(self, inference: Inference) -> Prediction:
        return self.stages.apply(self.model.interpret(inference))


class Session:
    """One client of the socket: its settings, its model, its stages, its frames in flight."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self._socket = socket
        self._service = service
        self._address = client_of(socket)
        self._client = f"webcam {uuid.uuid4().hex[:8]}"
        self._settings = WebcamSettings.model_validate({})
        self._running: _Running | None = None
        self._drawn = Rules()
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
                await self._take_text(message["text"])
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

    async def _take_text(self, text: str) -> None:
        try:
            drawn = read_drawing(text)
            if drawn is None:
                await self._configure(parse_settings(text, self._wanted or self._settings))
            else:
                await self._draw(drawn)
        except RuleError as error:
            self._bad += 1
            await self._send_json({"type": "refused", "error": str(error), **rule_of(error)})
        except PerceptionError as error:
            await self._refuse(error)

    async def _draw(self, drawn: Rules) -> None:
        """Change the rules.

        Raises:
            RuleError: they do not fit the model.
        """
        running = await self._opened()
        running.rules.check(drawn)
        self._drawn = drawn
        running.rules.draw(drawn)
        settings = self._settings
        running = await self._opened_for(settings)  # which may have to track now
        if self._settings is settings:
            self._running = running
        self._bad = 0
        await self._send_json({"type": "drawn", "faults": running.rules.faults})

    async def _configure(self, settings: WebcamSettings) -> None:
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
            running = await self._opened_for(settings)
        except PerceptionError as error:
            if not loading or self._wanted is settings:
                await self._refuse(error)
            return
        if loading and self._wanted is not settings:
            return
        self._settings, self._running = settings, running
        self._bad = 0
        ready = describe(running.model, settings.model or self._service.models.default)
        await self._send_json({**ready, **({"faults": running.rules.faults} if len(running.rules.drawn) else {})})

    async def _opened_for(self, settings: WebcamSettings) -> _Running:
        """What answers frames under some settings, and under the rules that hold when it is there."""
        while True:
            running = await asyncio.to_thread(self._open, settings)
            if running.rules.drawn is self._drawn:
                return running

    def _open(self, settings: WebcamSettings) -> _Running:
        """The model that is wanted, loaded if need be, with the client's options; stages stay as long as it does."""
        scheduler = self._service.models.scheduler(settings.model)
        before, card = self._running, scheduler.model.card
        same = before is not None and before.scheduler is scheduler
        rules = before.rules if before is not None and same else RuleBook(card, drawn=self._drawn)
        own = rules.stages(self._service.stages)
        model = settings.applied_to(scheduler.model, own)
        tracked = settings.interpretation(card, own)[1:]
        if before is not None and same and before.tracked == tracked:
            return _Running(scheduler, model, before.stages, tracked, rules)
        stages = LiveStages(card, settings.stages(card, own), self._client)
        return _Running(scheduler, model, stages, tracked, rules)

    async def _answer(self, message: bytes, arrived: float) -> None:
        number = number_of(message)
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
                if prediction.readings is not None and len(running.rules.drawn):
                    await self._socket.send_text(json.dumps(describe_readings(number, prediction.readings)))
                await self._socket.send_bytes(answer)
        problem = running.stages.problem
        if bool(problem) != bool(self._problem):
            self._problem = problem
            await self._send_json({"type": "problem", "problem": f"{problem}; shown without stages" if problem else ""})

    async def _opened(self) -> _Running:
        """The model and stages in use; opened by the first frame that comes before any settings."""
        async with self._opening:
            if self._running is None:
                self._running = await self._opened_for(self._settings)
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
