"""Route of what is kept of events: clips of the source as it came, and pictures of what was seen.

| route | what |
|---|---|
| ``GET /v1/footage/{name}`` | a clip (MP4, Matroska) or a snapshot (JPEG) whose link was in an event |

The name is looked up among those that the service gave; no path is made of what a client sends. A clip that is not
finished yet answers 503 with ``Retry-After``: an event is sent at once, and its clip goes on after it.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import FileResponse

from perception.server.problems import Busy, NotFound
from perception.server.routes.pictures import faults
from perception.server.service import Service

router = APIRouter()

RETRY_AFTER_S = 5.0

MEDIA_TYPES = {"mp4": "video/mp4", "mkv": "video/x-matroska", "jpg": "image/jpeg"}

Name = Annotated[str, Path(pattern=r"^[0-9a-f]{32}\.(mp4|mkv|jpg)$")]


@router.get(
    "/v1/footage/{name}",
    summary="A clip or snapshot of an event",
    response_class=FileResponse,
    responses={200: {"content": {media: {} for media in MEDIA_TYPES.values()}}, **faults(404, 422)},
)
async def footage(request: Request, name: Name) -> FileResponse:
    """The file that a link in an event leads to, as long as it is kept."""
    service: Service = request.app.state.service
    store = service.footage
    path = None if store is None else await asyncio.to_thread(store.find, name)
    if store is not None and path is None and store.is_making(name):
        raise Busy("it is still being made", RETRY_AFTER_S)
    if path is None or not path.is_file():
        raise NotFound("there is no such clip or snapshot; it may have been deleted to make room for newer ones")
    return FileResponse(path, media_type=MEDIA_TYPES[name[-3:]], headers={"Cache-Control": "private, no-store"})
