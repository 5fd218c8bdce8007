"""Routes of jobs: a video in, an annotated video and its data out, whenever they are done."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from perception.errors import PerceptionError
from perception.server.edge.multipart import FORM
from perception.server.edge.places import client_of
from perception.server.edge.uploads import open_upload, receive_file
from perception.server.jobs.store import RESULTS, Job, ResultKind, State
from perception.server.options import QueryOptions
from perception.server.routes.pictures import BINARY, FILE_OF_A_FORM, faults
from perception.server.service import Service

router = APIRouter()

_TYPES = ("video/*", "application/octet-stream", "application/mp4", "application/ogg", "")

JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="As POST /v1/jobs gave it.")]


class JobQuery(QueryOptions):
    """Query of a job: options, and a name.

    Attributes:
        name: what to call it; shown, and the stem of the results' names. None: as the form's file is called.
        model: name of the model; None: the default one.
    """

    name: str | None = Field(default=None, max_length=300)
    model: str | None = Field(default=None, max_length=200)


class Progress(BaseModel):
    """Progress of a job: ``frames`` of ``total``, which is None where the file does not tell."""

    frames: int
    total: int | None


class JobInfo(BaseModel):
    """A job, as clients see it. ``results`` are addresses on this server, there once the state is ``done``."""

    id: str
    name: str
    state: State
    model: str
    created: datetime
    updated: datetime
    expires: datetime | None
    progress: Progress
    fps: float | None
    error: str | None
    results: dict[ResultKind, str]


def describe(job: Job, service: Service) -> JobInfo:
    """A job as clients see it."""
    ttl, root = service.settings.limits.job_ttl_s, service.settings.root_path
    return JobInfo(
        id=job.id,
        name=job.name,
        state=job.state,
        model=job.model or service.models.default,
        created=_time(job.created),
        updated=_time(job.updated),
        expires=_time(job.updated + ttl) if job.ended else None,
        progress=Progress(frames=job.frames, total=job.total),
        fps=job.fps,
        error=job.error,
        results={kind: f"{root}/v1/jobs/{job.id}/{kind}" for kind in RESULTS} if job.state == "done" else {},
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


@router.post(
    "/v1/jobs",
    status_code=202,
    summary="Annotate a video",
    responses=faults(404, 408, 413, 415, 422, 429, 507),
    openapi_extra={
        "requestBody": {"required": True, "content": {**dict.fromkeys(_TYPES[:2], BINARY), FORM: FILE_OF_A_FORM}}
    },
)
async def create(request: Request, query: Annotated[JobQuery, Query()], response: Response) -> JobInfo:
    """The video as a form's only file, `curl -F file=@street.mp4`, or as the body itself,
    `curl --data-binary @street.mp4 -H 'Content-Type: video/mp4'`.

    The answer comes when the upload is complete and looks like a video; `Location` is where to ask how far it is.
    """
    service: Service = request.app.state.service
    limits, client = service.settings.limits, client_of(request)
    size, timeout_s = limits.upload_bytes, limits.body_timeout_s
    await asyncio.to_thread(_check, service, query)
    options = query.plain()
    with service.uploads.take(client):
        upload = await open_upload(request, _TYPES, size, timeout_s, "the video")
        name = query.name or upload.name or "video"
        job = await asyncio.to_thread(service.jobs.create, name, options, query.model, client)
        try:
            path = service.jobs.input(job.id)
            await receive_file(upload.stream, path, size, timeout_s, "the video", limits.upload_time_s)
            job = await asyncio.to_thread(service.jobs.queue, job.id)
        except (PerceptionError, ClientDisconnect, asyncio.CancelledError):
            service.jobs.discard(job.id)
            raise
    response.headers["Location"] = f"{service.settings.root_path}/v1/jobs/{job.id}"
    return describe(job, service)


def _check(service: Service, query: JobQuery) -> None:
    """Refuse a model or a class that there is not before anything is uploaded."""
    query.annotator(service.models.card(query.model))


@router.get("/v1/jobs", summary="All jobs, the newest first", responses=faults())
async def jobs(request: Request) -> list[JobInfo]:
    """Those that are finished are removed after a while."""
    service: Service = request.app.state.service
    return [describe(job, service) for job in await asyncio.to_thread(service.jobs.all)]


@router.get("/v1/jobs/{job_id}", summary="Progress of a job", responses=faults(404, 422))
async def job(request: Request, job_id: JobId) -> JobInfo:
    """State, progress, and where the results are."""
    service: Service = request.app.state.service
    return describe(await asyncio.to_thread(service.jobs.get, job_id), service)


@router.delete("/v1/jobs/{job_id}", status_code=204, summary="End and remove a job", responses=faults(404, 422))
async def delete(request: Request, job_id: JobId) -> None:
    """Its upload and its results are removed with it."""
    await asyncio.to_thread(request.app.state.service.jobs.delete, job_id)


@router.get(
    "/v1/jobs/{job_id}/{kind}",
    summary="A result of a job",
    response_class=FileResponse,
    responses={200: {"content": {kind: BINARY for _, kind in RESULTS.values()}}, **faults(404, 409, 416, 422)},
)
async def result(request: Request, job_id: JobId, kind: ResultKind) -> FileResponse:
    """The annotated video, or one line of JSON a frame. Parts may be asked for (`Range`)."""
    service: Service = request.app.state.service
    path = await asyncio.to_thread(service.jobs.result, job_id, kind)
    found = await asyncio.to_thread(service.jobs.get, job_id)
    stem = found.name.rpartition(".")[0] or found.name
    return FileResponse(path, media_type=RESULTS[kind][1], filename=f"{stem}-annotated{path.suffix}")
