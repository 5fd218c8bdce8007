"""Routes for single pictures, for the list of models, and for whoever watches over the server."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError
from typing import Annotated, Any

import cv2
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from perception.card import ClassInfo
from perception.model import Model
from perception.picture.conversions import to_bgr
from perception.picture.jpeg import MAX_SIDE
from perception.pipeline import StageChain
from perception.server.edge.budget import Hold
from perception.server.edge.multipart import FORM
from perception.server.edge.places import client_of
from perception.server.edge.uploads import IMAGE_FORMATS, open_upload, receive_bytes
from perception.server.inference.scheduler import Scheduler
from perception.server.metrics import CONTENT_TYPE
from perception.server.options import OVER_TIME, QueryOptions
from perception.server.problems import Busy, NotAcceptable
from perception.server.service import Service
from perception.sinks.records import Recorder
from perception.types import U8, Frame, Prediction

router = APIRouter()

IMAGE_TYPES = tuple(f"image/{name.lower()}" for name in IMAGE_FORMATS)
_ANY = ("application/octet-stream", "")
_JSON, _JPEG, _PNG = "application/json", "image/jpeg", "image/png"
_ANSWERS = {_JSON: "application/json", _JPEG: ".jpg", _PNG: ".png"}
BINARY = {"schema": {"type": "string", "format": "binary"}}
FILE_OF_A_FORM = {
    "schema": {
        "type": "object",
        "properties": {"file": BINARY["schema"]},
        "required": ["file"],
        "additionalProperties": False,
    }
}
PICTURE = {**dict.fromkeys((*IMAGE_TYPES, _ANY[0]), BINARY), FORM: FILE_OF_A_FORM}
"""Bodies that hold a picture, for OpenAPI."""


class Fault(BaseModel):
    """Body of every answer that is not a success."""

    error: str


def faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses for OpenAPI, with those that every route may answer with."""
    return {status: {"model": Fault} for status in (400, 401, 403, 429, 503, *statuses)}


class PredictQuery(QueryOptions):
    """Query of a prediction: options, model and form of the answer.

    Attributes:
        model: name of the model; None: the default one.
        rle: put class masks into the JSON, as COCO RLE.
    """

    model: str | None = Field(default=None, max_length=200)
    rle: bool = False


class ModelInfo(BaseModel):
    """A model that may be named in requests."""

    name: str
    default: bool
    loaded: bool
    engine: str | None
    version: str
    description: str
    tasks: list[str]
    size: tuple[int, int]
    segments: list[ClassInfo]
    boxes: list[ClassInfo]
    labels: list[str]
    licence: str
    trained_on: list[str]
    metrics: dict[str, float]


@router.post(
    "/v1/predict",
    summary="Boxes and class masks of a picture",
    responses={
        200: {"content": {_JSON: {}, _JPEG: BINARY, _PNG: BINARY}, "description": "As `Accept` asks."},
        **faults(404, 406, 408, 413, 415, 422, 429),
    },
    openapi_extra={
        "requestBody": {"required": True, "content": PICTURE},
        "parameters": [{"in": "header", "name": "Accept", "schema": {"enum": list(_ANSWERS)}, "required": False}],
    },
)
async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
    """The picture as a form's only file, `curl -F file=@photo.jpg`, or as the body itself,
    `curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'`.

    The answer is JSON, or with `Accept: image/jpeg` or `image/png` the annotated picture.
    """
    service: Service = request.app.state.service
    kind = media_type(request.headers.get("accept", ""), tuple(_ANSWERS))
    client = client_of(request)
    data = await receive_picture(request)
    scheduler = await asyncio.to_thread(service.models.scheduler, query.model)
    query = query.model_copy(update=dict.fromkeys(OVER_TIME, False))
    model = query.applied_to(scheduler.model)
    stages = [stage for stage in service.stages if stage.name not in OVER_TIME]  # a picture is a source of its own
    chain = await asyncio.to_thread(query.chain, model.card, stages)

    def decode(hold: Hold | None) -> tuple[Hold, U8]:
        return service.pictures.decode(data, client, hold)

    hold, image = await service.pictures.with_room(decode, client, lambda made: made[0].leave())
    with hold:
        prediction = await _result(scheduler, model, image, f"api {client}", hold)
        service.metrics.frame_done(prediction, "api")
        return await service.pictures.run(hold, _answer, prediction, query, chain, scheduler, kind)


async def receive_picture(request: Request) -> bytes:
    """The bytes of the picture that a request holds, not looked at yet.

    Raises:
        Problem: it holds something else, or more than is taken; see `open_upload` and `receive_bytes`.
    """
    service: Service = request.app.state.service
    limits = service.settings.limits
    size, timeout_s = limits.image_bytes, limits.body_timeout_s
    with service.uploads.take(client_of(request)):
        upload = await open_upload(request, (*IMAGE_TYPES, *_ANY), size, timeout_s, "the image")
        return await receive_bytes(upload.stream, size, timeout_s, "the image", limits.body_time_s)


async def _result(scheduler: Scheduler, model: Model, image: U8, client: str, hold: Hold) -> Prediction:
    future = scheduler.submit(Frame(image), client=client, model=model)
    hold.until(future)
    try:
        return await asyncio.wrap_future(future)
    except (CancelledError, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and getattr(task, "cancelling", lambda: 0)():
            raise  # the request itself was given up
        raise Busy("the model is being shut down; try again shortly") from None


def _answer(
    prediction: Prediction, query: PredictQuery, chain: StageChain, scheduler: Scheduler, kind: str
) -> Response:
    prediction = chain.apply(prediction)
    if kind == _JSON:
        record = Recorder(scheduler.model.card, masks=query.rle)(prediction)
        return JSONResponse({"model": scheduler.name} | {k: v for k, v in record.items() if k in _OF_A_PICTURE})
    picture = chain.render(prediction).picture
    assert picture is not None
    image = to_bgr(picture)
    if kind == _JPEG and max(image.shape) > MAX_SIDE:
        raise NotAcceptable(f"{image.shape[1]}x{image.shape[0]} is too large for JPEG; ask for {_PNG}")
    return Response(cv2.imencode(_ANSWERS[kind], image)[1].tobytes(), media_type=kind)


_OF_A_PICTURE = ("size", "detections", "shares", "masks", "labels", "timings")


@router.get("/v1/models", summary="Models that requests may name", responses=faults())
async def models(request: Request) -> list[ModelInfo]:
    """The default model comes first. A model is loaded when it is first asked for."""
    return await asyncio.to_thread(_list, request.app.state.service)


def _list(service: Service) -> list[ModelInfo]:
    loaded = service.models.loaded()
    return [
        ModelInfo(
            name=file.name,
            default=file.name == service.models.default,
            loaded=file.name in loaded,
            engine=loaded[file.name].model.engine.description if file.name in loaded else None,
            version=file.card.version,
            description=file.card.description,
            tasks=file.card.tasks,
            size=(file.card.input.width, file.card.input.height),
            segments=file.card.segmentation.classes if file.card.segmentation else [],
            boxes=file.card.detection.classes if file.card.detection else [],
            labels=file.card.classification.names if file.card.classification else [],
            licence=file.card.licence,
            trained_on=file.card.trained_on,
            metrics=file.card.metrics,
        )
        for file in service.models.files()
    ]


@router.get("/healthz", summary="Liveness", responses=faults())
async def healthz() -> dict[str, str]:
    """Answers as long as the server does."""
    return {"status": "ok"}


@router.get("/readyz", summary="Readiness: the default model is loaded and warm", responses=faults())
async def readyz(request: Request) -> dict[str, str]:
    """503 until then, and where it cannot be loaded."""
    service: Service = request.app.state.service
    if service.ready.is_set():
        return {"status": "ready", "model": service.models.default}
    raise Busy(service.problem or "the model is being loaded", retry_after_s=2)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **faults()},
)
async def metrics(request: Request) -> Response:
    """Frames, drops, latencies, queues, engines, viewers, reconnects."""
    return Response(await asyncio.to_thread(request.app.state.service.metrics.render), media_type=CONTENT_TYPE)


def media_type(accept: str, known: tuple[str, ...]) -> str:
    """The media type that an ``Accept`` header likes best of those that can be made, the first one where it is empty.

    Raises:
        NotAcceptable: it likes none of them.
    """
    liked: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = (text.strip().lower() for text in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if name:
            liked[name] = quality
    if not liked:
        return known[0]

    def quality_of(kind: str) -> float:
        for pattern in (kind, kind.partition("/")[0] + "/*", "*/*"):
            if pattern in liked:
                return liked[pattern]
        return 0.0

    best = max(known, key=quality_of)  # the first of equals
    if not quality_of(best) > 0:
        raise NotAcceptable(f"can answer with {', '.join(known)}")
    return best
