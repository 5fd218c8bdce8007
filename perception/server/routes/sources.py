"""Routes of the sources that have a name: what there is, and changes while the server runs.

| route | what |
|---|---|
| ``GET /v1/sources`` | ``{"editable": true, "sources": [{"name": "gate", "added": false, "paused": false, ...}]}`` |
| ``PUT /v1/sources/{name}`` | ``{"uri": "rtsp://cam1.local/a", "fps": 5}``: add it (201), or replace it (200) |
| ``PATCH /v1/sources/{name}`` | ``{"paused": true}``: pause any source, or let it go on |
| ``DELETE /v1/sources/{name}`` | remove one that was added |

The address is one that the operator allows to clients (``allow``, ``cameras``): adding gives a name to what a client
may open anyway. Who may do this is the operator's choice, ``edit-sources``; by default whoever has the credentials.
Sources of the configuration file are changed there, and can only be paused here. What is added or paused is kept over a
restart. Other sources go on meanwhile, and lose nothing.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from perception.server.routes.pictures import faults
from perception.server.service import Service
from perception.server.settings import AddedSource, Decoding, Every
from perception.server.streams.source_book import Entry
from perception.sources.uri import redact

router = APIRouter()

Name = Annotated[str, Path(min_length=1, max_length=64)]


class NewSource(BaseModel):
    """A source to add.

    Attributes:
        uri: a URL or the number of a camera that clients may open.
        keep: open it always, watched or not.
        fps: frames a second that are looked at; None: as many as there is time for.
        priority: turns of the engine for each one of a source of priority 1, where there is no time for all.
        paused: do not connect to it yet.
        decode: which frames of a network stream: those ``needed`` for the ones that are looked at, or ``all``.
        every: ``auto``: frames for which the engine has no time get its results of earlier ones; 1: they are dropped.
    """

    model_config = ConfigDict(extra="forbid")

    uri: str = Field(min_length=1, max_length=2000)
    keep: bool = False
    fps: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)
    priority: float = Field(default=1.0, ge=0.1, le=10, allow_inf_nan=False)
    paused: bool = False
    decode: Decoding = "needed"
    every: Every = 1


class SourceChange(BaseModel):
    """What changes of a source: whether it is paused."""

    model_config = ConfigDict(extra="forbid")

    paused: bool


class SourceEntry(BaseModel):
    """A source that has a name.

    Attributes:
        name: of it.
        added: by a client; else it is in the configuration file.
        address: no more of it than scheme, host and port, because the rest may be secret; of a file nothing.
        paused, keep, fps, priority, decode, every: see `NewSource`.
    """

    name: str
    added: bool
    address: str
    paused: bool
    keep: bool
    fps: float | None
    priority: float
    decode: Decoding
    every: Every


class SourceList(BaseModel):
    """All sources that have a name, and whether clients may change any."""

    editable: bool
    sources: list[SourceEntry]


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.get("/v1/sources", summary="Sources that have a name", responses=faults())
async def list_sources(request: Request) -> SourceList:
    """Those of the configuration first, then those that were added."""
    roster = _service(request).roster
    return SourceList(
        editable=roster.editable, sources=[_described(name, entry) for name, entry in roster.entries().items()]
    )


@router.put(
    "/v1/sources/{name}",
    summary="Add a source",
    status_code=201,
    responses={200: {"model": SourceEntry}, **faults(403, 404, 409, 422, 507)},
)
async def put_source(request: Request, name: Name, new: NewSource, response: Response) -> SourceEntry:
    """Adds it, or replaces one that was added. The address is checked as for opening it."""
    service = _service(request)
    service.roster.check_editable()
    found = await service.streams.check_address(new.uri)
    source = AddedSource(**new.model_dump() | {"uri": found.uri})
    made = await asyncio.to_thread(service.roster.put, name, source)
    response.status_code = 201 if made else 200
    return _described(name, service.roster.entries()[name])


@router.patch("/v1/sources/{name}", summary="Pause or resume a source", responses=faults(403, 404, 422, 507))
async def change_source(request: Request, name: Name, change: SourceChange) -> SourceEntry:
    """A paused source is not connected to; its viewers, rules and counts stay."""
    roster = _service(request).roster
    roster.check_editable()
    await asyncio.to_thread(roster.pause, name, change.paused)
    return _described(name, roster.entries()[name])


@router.delete("/v1/sources/{name}", summary="Remove a source", status_code=204, responses=faults(403, 404, 422, 507))
async def remove_source(request: Request, name: Name) -> None:
    """One that was added; lines and zones that were drawn at it go with it."""
    roster = _service(request).roster
    roster.check_editable()
    await asyncio.to_thread(roster.remove, name)


def _described(name: str, entry: Entry) -> SourceEntry:
    source = entry.source
    address = redact(source.uri) if "://" in source.uri else ""
    return SourceEntry(
        name=name, added=entry.added, address=address, paused=source.paused, keep=source.keep, fps=source.fps,
        priority=source.priority, decode=source.decode, every=source.every,
    )  # fmt: skip
