"""Routes of the lines and zones that clients draw at a stream's source.

| route | what |
|---|---|
| ``GET /v1/streams/{id}/rules`` | the rules of the stream's source, below; ``ETag`` is the version of the drawn ones |
| ``PUT /v1/streams/{id}/rules`` | replace all that are drawn; with ``If-Match: ETAG`` only if nobody else has (412) |

What is sent is what a rules file has, see docs/rules.md; ``{}`` deletes all::

    {"lines": [{"name": "gate", "points": [[0.1, 0.6], [0.9, 0.6]]}], "zones": [], "conditions": []}

and what is answered::

    {"editable": true, "fixed": {"lines": [...]}, "drawn": {"lines": [...]}, "faults": {"gate": "one line"}}

``fixed`` are the operator's. ``faults`` says why drawn rules are not applied, where the stream's model does not give
what they look at, as after another model was chosen; a new rule with such a fault is refused. An error names the rule
that it is about: ``{"error": "line 'gate': points: ...", "rule": "gate"}`` (422).

Rules hold from the next frame on; one that stays the same goes on counting. They are kept for the source, whatever the
model, also when the stream is closed or the server ends. What they say is in the stream's status.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict

from perception.rules.settings import make_rules
from perception.server.routes.pictures import Fault, faults
from perception.server.routes.streams import Id
from perception.server.service import Service
from perception.server.streams.stream import Stream

router = APIRouter()


class DrawnRules(BaseModel):
    """Rules, as in a rules file: each is checked by itself, and an error names the one that is wrong.

    Attributes:
        lines, zones, conditions: with a name that no other one has.
    """

    model_config = ConfigDict(extra="forbid")

    lines: list[Any] = []
    zones: list[Any] = []
    conditions: list[Any] = []


class RuleFault(Fault):
    """Why rules are refused.

    Attributes:
        rule: name of the one that is wrong, if it is about one that has a name.
    """

    rule: str | None = None


class SourceRules(BaseModel):
    """All rules of a source.

    Attributes:
        editable: whether clients may draw.
        fixed: the operator's.
        drawn: by clients.
        faults: by name why drawn ones are not applied.
    """

    editable: bool
    fixed: dict[str, list[dict[str, Any]]]
    drawn: dict[str, list[dict[str, Any]]]
    faults: dict[str, str]


@router.get("/v1/streams/{id}/rules", summary="Lines and zones of a stream", responses=faults(404, 422))
async def get_rules(request: Request, id: Id, response: Response) -> SourceRules:
    """The operator's, and those that clients have drawn."""
    return _answer(_service(request), _service(request).streams.get(id), response)


@router.put(
    "/v1/streams/{id}/rules",
    summary="Draw lines and zones",
    responses={**faults(404, 409, 412, 413, 507), 422: {"model": RuleFault}},
)
async def draw_rules(
    request: Request,
    id: Id,
    rules: DrawnRules,
    response: Response,
    if_match: Annotated[str | None, Header(max_length=100)] = None,
) -> SourceRules:
    """Replaces all that clients have drawn at the stream's source, and keeps it."""
    service = _service(request)
    before = None if if_match is None or if_match == "*" else if_match.strip().removeprefix("W/").strip('"')

    def draw() -> Stream:
        return service.streams.draw(id, make_rules(rules.model_dump(), empty=True), before)

    return _answer(service, await asyncio.to_thread(draw), response)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _answer(service: Service, stream: Stream, response: Response) -> SourceRules:
    book = stream.rules
    response.headers["ETag"] = f'"{book.version}"'
    response.headers["Cache-Control"] = "no-store"
    return SourceRules(
        editable=service.settings.draw_rules,
        fixed=book.fixed.as_dict(),
        drawn=book.drawn.as_dict(),
        faults=book.faults,
    )
