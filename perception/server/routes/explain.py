"""The route of explanations: what a model looked at in a picture."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from perception.server.edge.budget import Hold
from perception.server.edge.places import client_of
from perception.server.inference.explain_process import Method, Question, explain, missing, write_down
from perception.server.options import Name
from perception.server.problems import NotInstalled
from perception.server.routes.pictures import BINARY, PICTURE, faults, receive_picture
from perception.server.service import Service

router = APIRouter()

_LOOK_S = 0.5

Pixel = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class ExplainQuery(BaseModel):
    """Query of an explanation.

    Attributes:
        model: name of the model; None: the default one.
        method: gradient, guided backpropagation, deconvnet, SmoothGrad, or occlusion, which takes longest.
        class_name: of which class; None: the one that the model is surest of.
        task: of which result; None: the first that the model gives and that has the class.
        x, y: a point of the picture, in pixels: its own class, or the box around it. Both or neither.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Name | None = None
    method: Method = "smoothgrad"
    class_name: Name | None = None
    task: Literal["classification", "detection", "segmentation"] | None = None
    x: Pixel | None = None
    y: Pixel | None = None

    @model_validator(mode="after")
    def _a_point_has_both(self) -> ExplainQuery:
        if (self.x is None) != (self.y is None):
            raise ValueError("a point has x and y: give both or neither")
        return self


@router.post(
    "/v1/explain",
    summary="Saliency map of a picture",
    response_class=Response,
    responses={
        200: {
            "content": {"image/png": BINARY},
            "headers": {
                "X-Explained": {"description": "What, in words; URL-encoded.", "schema": {"type": "string"}},
            },
        },
        **faults(404, 408, 413, 415, 422, 501),
    },
    openapi_extra={"requestBody": {"required": True, "content": PICTURE}},
)
async def explain_picture(request: Request, query: Annotated[ExplainQuery, Query()]) -> Response:
    """The picture goes as to `/v1/predict`; back comes a PNG of it in grey, and over it in colour what mattered.

    One at a time, each in a process of its own that ends when the client leaves. Needs the extra `train`.
    """
    service: Service = request.app.state.service
    if (lacking := missing()) is not None:
        raise NotInstalled(lacking)
    data = await receive_picture(request)
    with service.explanations.take():
        model, card = await asyncio.to_thread(service.models.source, query.model)
        at = None if query.x is None or query.y is None else (query.x, query.y)
        question = Question(model, card, query.method, query.class_name, query.task, at)
        client = client_of(request)

        def read(hold: Hold | None) -> bytes:
            taken, image = service.pictures.decode(data, client, hold)
            with taken:
                return write_down(image, question)

        asked = await service.pictures.with_room(read, client, lambda _: None)
        given_up = threading.Event()
        making = asyncio.create_task(asyncio.to_thread(explain, asked, given_up))
        try:
            while not (await asyncio.wait({making}, timeout=_LOOK_S))[0]:
                if await request.is_disconnected():
                    given_up.set()
            answer = await making
        finally:
            given_up.set()
    headers = {"X-Explained": quote(answer.what), "Cache-Control": "no-store"}
    return Response(answer.png, media_type="image/png", headers=headers)
