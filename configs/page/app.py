"""The interface of the page over HTTP. `/api/openapi.json` describes it."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from dp360.exporters.formats import FORMATS, Kind
from dp360.generation import InputError

from ..example import example_png
from ..jobs.head_task import export_name
from ..options import LightLook, Quality
from .engine import Engine
from .guard import COOKIE_NAME, VIEWER_POLICY, Access, Guard
from .store import settings_from
from .tasks import FRONT_NAME, PREVIEW_NAME, THUMBNAIL_NAME

_HEARTBEAT_S = 10.0
"""A word to whoever listens for changes, so that dead connections are noticed."""
_STATIC = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_PICTURES = {"preview": PREVIEW_NAME, "front": FRONT_NAME, "thumbnail": THUMBNAIL_NAME}
_HEAD_FILES = {"portrait": "portrait.png", "sheet": "contact_sheet.png"}
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="Id of a job: 32 hexadecimal digits.")]
Ending = Annotated[str, Path(max_length=20, description="Ending of a file, such as spz, glb or compressed.ply.")]


@dataclass(frozen=True)
class UploadLimits:
    """How much and how slowly pictures may come."""

    most_bytes: int = 32_000_000
    """Largest picture."""
    piece_s: float = 15.0
    """Longest wait for the next piece."""
    whole_s: float = 120.0
    """Longest time for all of it."""


class Settings(BaseModel):
    """How a head is made."""

    model_config = ConfigDict(extra="forbid")
    quality: Quality = Field("standard", description="The dial of dp360 run.")
    generator: Literal["auto", "prior", "field", "compact"] = Field("auto", description="Who makes the views.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="The same seed gives the same head.")
    face_index: int | None = Field(None, ge=0, le=1000, description="Which face of several, 0 being the largest.")
    no_face: bool = Field(False, description="Align by the outline alone.")
    crop: Literal["auto", "standard", "wide"] = Field("auto", description="wide has room for long hair and hats.")
    light: LightLook = Field("portrait", description="The head's light.")
    no_glasses: bool = Field(False, description="Take off the glasses.")


class JobProgress(BaseModel):
    """How far a running job is."""

    stage: str = Field(description="portrait, weights, prior, views, dataset, fit, export or formats.")
    step: str = Field(description="What it is doing, in words.")
    stage_unit: float = Field(description="Share of the stage that is done, 0 to 1.")
    unit: float = Field(description="Share of the whole that is done, 0 to 1.")
    elapsed_s: float = Field(description="Seconds since it began.")
    left_s: float = Field(description="Seconds that it is expected to take still.")


class ShownJob(BaseModel):
    """What is known of a portrait and its head."""

    id: str
    number: int = Field(description="Counts up: later jobs have larger ones.")
    name: str = Field(description="Name of the picture.")
    status: Literal["draft", "queued", "running", "done", "failed", "cancelled"]
    settings: Settings
    faces: list[list[float]] = Field(description="Left, top, width, height of faces in shares of the preview's sides.")
    has_face: bool = Field(description="Whether a head can be placed by a face; if not, ask with no_face.")
    error: str | None = Field(description="Why there is no head, or why a format was not made.")
    warnings: list[str] = Field(description="Sentences that people should see.")
    seconds: float | None = Field(description="Seconds that the head took.")
    ahead: int = Field(description="Heads that wait before this one.")
    progress: JobProgress | None
    made: list[str] = Field(description="Endings of formats that can be fetched, beside ply and glb.")
    making: list[str] = Field(description="Endings of formats that were asked for and are not there yet.")


class Format(BaseModel):
    """One format that a head can be had in."""

    ending: str
    kind: Kind


class Token(BaseModel):
    """What a browser shows once to be known from then on."""

    token: str = Field(max_length=200)


def make_app(engine: Engine, access: Access, limits: UploadLimits | None = None) -> Guard:
    """The ASGI application.

    Args:
        engine: does the work; it is started and closed by the caller.
        access: who may ask.
        limits: of uploads.
    """
    limits = limits or UploadLimits()
    app = FastAPI(
        title="dp360",
        summary="Portraits become 3D heads.",
        description="A picture is uploaded and looked at (`POST /api/portraits`), its head is asked for (`POST "
        "/api/jobs/{id}/start`), watched (`GET /api/events`) and fetched (`GET /api/jobs/{id}/files/{ending}`).",
        version="1",
        openapi_url="/api/openapi.json",
        docs_url=None,  # their pages would load scripts from another machine
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_errors(app)
    _add_page(app)
    _add_session(app, access)
    _add_portraits(app, engine, limits)
    _add_jobs(app, engine)
    _add_files(app, engine)
    _add_events(app, engine)
    return Guard(app, access)


def _add_errors(app: FastAPI) -> None:
    """Every refusal is one sentence under `detail`."""

    @app.exception_handler(InputError)
    async def input_error(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"detail": " ".join(str(error).split())}, 422)

    @app.exception_handler(KeyError)
    async def unknown(request: Request, error: KeyError) -> JSONResponse:
        return JSONResponse({"detail": "There is no such head; it may have been deleted"}, 404)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"][1:]) or "the request"
        status = 404 if found["loc"][:1] == ("path",) else 422
        return JSONResponse({"detail": f"{place[:60]}: {found['msg']}"}, status)


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    @app.get("/page.css", include_in_schema=False)
    @app.get("/page.js", include_in_schema=False)
    def page(request: Request) -> Response:
        name, media_type = _STATIC[request.url.path]
        return Response(_static(name), media_type=f"{media_type}; charset=utf-8")


@cache
def _static(name: str) -> bytes:
    return resources.files("dp360.configs.page").joinpath(name).read_bytes()


def _add_session(app: FastAPI, access: Access) -> None:
    @app.post("/api/session", status_code=204, summary="Show the token once; a cookie is given for it")
    def open_session(given: Token) -> Response:
        if not access.knows_token(given.token):
            raise HTTPException(401, "That is not the token of this server")
        answer = Response(status_code=204)
        if access.token is not None:
            answer.set_cookie(COOKIE_NAME, access.cookie, httponly=True, samesite="strict", path="/")
        return answer


def _add_portraits(app: FastAPI, engine: Engine, limits: UploadLimits) -> None:
    @app.post(
        "/api/portraits",
        response_model=ShownJob,
        status_code=201,
        summary="Upload a picture as the body of the request; it is looked at before the answer comes",
        openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    )
    async def upload(
        request: Request, name: Annotated[str, Query(max_length=300, description="Name of the picture.")] = "portrait"
    ) -> Any:
        picture = await _body(request, limits)
        return await run_in_threadpool(engine.look, name, picture)

    @app.post("/api/example", response_model=ShownJob, status_code=201, summary="Take the example as the picture")
    def take_example() -> Any:
        return engine.look("astronaut.png", example_png())


async def _body(request: Request, limits: UploadLimits) -> bytes:
    """The body of a request, if it is neither too large nor too slow."""
    megabytes = limits.most_bytes / 1e6
    too_large = HTTPException(413, f"The picture is larger than the {megabytes:.0f} MB accepted; save it smaller")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > limits.most_bytes:
        raise too_large
    data, pieces = bytearray(), request.stream().__aiter__()
    end_s = asyncio.get_running_loop().time() + limits.whole_s
    while True:
        left_s = min(limits.piece_s, end_s - asyncio.get_running_loop().time())
        try:
            piece = await asyncio.wait_for(pieces.__anext__(), max(left_s, 0.01))
        except StopAsyncIteration:
            break
        except asyncio.TimeoutError:
            raise HTTPException(408, "The picture came too slowly; try again", {"connection": "close"}) from None
        data += piece
        if len(data) > limits.most_bytes:
            raise too_large
    if not data:
        raise HTTPException(422, "The file is empty; expected a picture")
    return bytes(data)


def _add_jobs(app: FastAPI, engine: Engine) -> None:
    @app.get("/api/jobs", response_model=list[ShownJob], summary="All heads, the newest first")
    def jobs() -> Any:
        return engine.all_shown()

    @app.get("/api/jobs/{job_id}", response_model=ShownJob, summary="One head")
    def job(job_id: JobId) -> Any:
        return engine.shown(job_id)

    @app.post("/api/jobs/{job_id}/start", response_model=ShownJob, summary="Ask for the head of an uploaded picture")
    def start(job_id: JobId, settings: Settings) -> Any:
        return engine.begin(job_id, settings_from(settings.model_dump()))

    @app.post("/api/jobs/{job_id}/cancel", response_model=ShownJob, summary="Stop a waiting or running head")
    def cancel(job_id: JobId) -> Any:
        return engine.cancel(job_id)

    @app.delete("/api/jobs/{job_id}", status_code=204, summary="Delete a head with all its files")
    def delete(job_id: JobId) -> Response:
        engine.delete(job_id)
        return Response(status_code=204)

    @app.get("/api/formats", response_model=list[Format], summary="Formats that heads can be had in")
    def formats() -> Any:
        return offered_formats()

    @app.post("/api/jobs/{job_id}/formats/{ending}", response_model=ShownJob, summary="Ask for one more format")
    def want(job_id: JobId, ending: Ending) -> Any:
        return engine.want(job_id, ending)


def offered_formats() -> list[dict[str, str]]:
    """Ending and kind of each format; of two with one ending the first, as `dp360 export` does."""
    first = {found.ending: found.kind for found in reversed(FORMATS)}
    return [{"ending": found.ending, "kind": found.kind} for found in FORMATS if first.get(found.ending) == found.kind]


def _add_files(app: FastAPI, engine: Engine) -> None:
    @app.get(
        "/api/jobs/{job_id}/files/{ending}", summary="The head in one format, as a file", response_class=FileResponse
    )
    def file(job_id: JobId, ending: Ending) -> Response:
        shown, folder = engine.shown(job_id), engine.folder(job_id)
        if ending not in {found["ending"] for found in offered_formats()}:
            raise HTTPException(404, "There is no such format")
        path = folder / "head" / export_name(ending)
        if shown["status"] != "done" or not path.is_file():
            raise HTTPException(404, "The head is not there in this format; ask for it first")
        stem = FilePath(shown["name"]).stem or "head"
        beside = sorted(folder.glob("head/head.mtl")) + sorted(folder.glob("head/head*.png")) if ending == "obj" else []
        if beside:
            return Response(
                _zipped([path, *beside]), media_type="application/zip", headers=_attachment(f"{stem}.obj.zip")
            )
        return FileResponse(
            path,
            media_type="application/octet-stream",
            headers=_attachment(f"{stem}.{ending}"),
        )

    @app.get("/api/jobs/{job_id}/dataset", summary="The views as a data set, zipped")
    def dataset(job_id: JobId) -> Response:
        shown, folder = engine.shown(job_id), engine.folder(job_id) / "head" / "dataset"
        if shown["status"] != "done" or not folder.is_dir():
            raise HTTPException(404, "There are no views yet")
        stem = FilePath(shown["name"]).stem or "head"
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        data = _zipped(files, folder)
        return Response(data, media_type="application/zip", headers=_attachment(f"{stem}.dataset.zip"))

    @app.get(
        "/api/jobs/{job_id}/pictures/{which}",
        summary="preview: upright; portrait: cut out; front: the head from the portrait's camera; sheet; thumbnail",
        response_class=FileResponse,
    )
    def picture(job_id: JobId, which: Literal["preview", "portrait", "front", "sheet", "thumbnail"]) -> Response:
        folder = engine.folder(job_id)
        path = folder / _PICTURES[which] if which in _PICTURES else folder / "head" / _HEAD_FILES[which]
        if not path.is_file():
            raise HTTPException(404, "There is no such picture yet")
        return FileResponse(path, media_type="image/jpeg" if path.suffix == ".jpg" else "image/png")

    @app.get("/api/jobs/{job_id}/viewer", summary="A page that shows the head in 3D", response_class=FileResponse)
    def viewer(job_id: JobId) -> Response:
        path = engine.folder(job_id) / "head" / export_name("html")
        if not path.is_file():
            raise HTTPException(404, "The head is not there yet")
        return FileResponse(path, media_type="text/html", headers={"content-security-policy": VIEWER_POLICY})


def _attachment(name: str) -> dict[str, str]:
    """Headers of a file that is saved under a name."""
    from urllib.parse import quote

    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    return {"content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"}


def _zipped(files: list[FilePath], folder: FilePath | None = None) -> bytes:
    """Files in an archive, by their names or their places in a folder; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            name = path.name if folder is None else path.relative_to(folder).as_posix()
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), path.read_bytes())
    return buffer.getvalue()


def _add_events(app: FastAPI, engine: Engine) -> None:
    @app.get(
        "/api/events",
        summary="All heads as they are, then every change, as server-sent events",
        description="`jobs` comes first with a list of all heads; then `job` with one that has changed, and `deleted` "
        "with an id.",
        response_class=StreamingResponse,
    )
    async def events(request: Request) -> StreamingResponse:
        return StreamingResponse(_changes(engine, request), media_type="text/event-stream")


async def _changes(engine: Engine, request: Request) -> AsyncIterator[str]:
    """Events for one listener; of several changes of one job that wait, the last is told."""
    loop, changed, awake = asyncio.get_running_loop(), dict[str, dict[str, Any] | None](), asyncio.Event()

    def heard(job_id: str, shown: dict[str, Any] | None) -> None:
        def take() -> None:
            changed[job_id] = shown
            awake.set()

        loop.call_soon_threadsafe(take)

    end = engine.listen(heard)
    try:
        yield _event("jobs", engine.all_shown())
        while not await request.is_disconnected():
            try:
                await asyncio.wait_for(awake.wait(), _HEARTBEAT_S)
            except asyncio.TimeoutError:
                yield ": still here\n\n"
                continue
            awake.clear()
            told = dict(changed)
            changed.clear()
            for job_id, shown in told.items():
                if shown is None:
                    yield _event("deleted", job_id)
                elif shown["status"] != "draft":
                    yield _event("job", shown)
    finally:
        end()


def _event(kind: str, data: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
