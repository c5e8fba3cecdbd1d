"""The HTTP application: routes, who may use them, and answers that are streamed."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pandacli.errors import PandaError
from pandacli.inference.spec import Answer, Scores
from pandacli.server.clips import ClipKey, Result
from pandacli.server.completions import Chunks, completion
from pandacli.server.connections import Bodies
from pandacli.server.engine import Engine
from pandacli.server.guard import Guard, error_response
from pandacli.server.media import FrameReaders, Limits, MediaFolders, describe
from pandacli.server.native import native_routes
from pandacli.server.page import page_routes
from pandacli.server.protocol import (
    ChatRequest,
    ClipRequest,
    RequestError,
    VideoSource,
    error_object,
    parse_chat,
    parse_json,
)
from pandacli.server.streaming import Answering, EventStream, until_gone
from pandacli.server.uploads import Uploads

if TYPE_CHECKING:
    from pandacli.inference.panda import Panda
    from pandacli.video import Frames

_READ_BYTES = 64 << 20  # of frames that are kept for questions after a look at them
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class ServerSettings:
    """What `panda serve` was asked for."""

    model: str  # the name that requests use
    image_size: int
    media: Sequence[Path] = ()
    limits: Limits = field(default_factory=Limits)
    api_key: str | None = None
    hosts: Sequence[str] = _LOCAL_NAMES  # names in the Host header; none is any
    most_requests: int = 256
    budget: int = 1 << 30  # bytes of prefixes in memory
    keep_alive: float | None = None  # seconds until an idle model is freed
    preload: bool = True  # load the model at once, not with the first request


def create_app(settings: ServerSettings, load: "Callable[[], Panda]") -> Starlette:
    """The application; the model is loaded on the engine's thread."""
    service = Service(settings, load)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with service:
            yield

    routes = [
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/v1/models/{model:path}", service.model),
        Route("/v1/files", service.upload, methods=["POST"]),
        Route("/v1/files", service.files),
        Route("/v1/files/{id}", service.file),
        Route("/v1/files/{id}", service.remove, methods=["DELETE"]),
        Route("/health", service.health),
        Route("/metrics", service.metrics),
        *native_routes(service),
        *page_routes(service),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.add_exception_handler(PandaError, _panda_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(Exception, _fault)
    app.add_middleware(Guard, settings=settings)
    return app


class Service:
    """What the routes do; a context manager."""

    def __init__(self, settings: ServerSettings, load: "Callable[[], Panda]") -> None:
        self.settings, limits = settings, settings.limits
        self.engine = Engine(
            load,
            budget=settings.budget,
            most_requests=settings.most_requests,
            keep_alive=settings.keep_alive,
            preload=settings.preload,
        )
        self.folders = MediaFolders(settings.media)
        self._uploads = Uploads(limits.upload, limits.uploads)
        self._bodies = Bodies(limits.upload)
        self._readers = FrameReaders(settings.image_size, limits, preload=settings.preload)
        self._read: OrderedDict[ClipKey, Frames] = OrderedDict()  # the latest used last
        self._metrics = _Metrics(self.engine)

    def __enter__(self) -> "Service":
        self._stack = ExitStack()
        self._stack.callback(self._uploads.close)
        self._stack.enter_context(self._readers)
        self._stack.enter_context(self.engine)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def chat(self, request: HttpRequest) -> Response:
        started = perf_counter()
        with ExitStack() as stack:
            asked, path = await self._receive(request, stack)
            self._metrics.requests.inc()
            answering = Answering(stream=asked.stream)
            stack.callback(answering.cancel)
            result = await until_gone(request, self._begin(asked, path, answering))
            if asked.stream:
                self._metrics.first_token.observe(perf_counter() - started)
                events = self._events(asked, answering, result)
                return EventStream(events, stack.pop_all().close)
        assert isinstance(result, Answer | Scores)
        self._metrics.count(result)
        return JSONResponse(completion(asked, self.settings.model, result))

    async def _receive(self, request: HttpRequest, stack: ExitStack) -> tuple[ChatRequest, Path]:
        """A chat completion that is asked for, once it has its place, and the file of its video."""
        with self._bodies.received(request) as received:
            asked = parse_chat(await run_in_threadpool(parse_json, await received.body()))
            self._check_model(asked.model)
            stack.enter_context(self.engine.place())
            used = stack.enter_context(self._uploads.using())
            path = await run_in_threadpool(self.find, asked.video, used)
        return replace(asked, video=replace(asked.video, data="")), path

    async def models(self, _: HttpRequest) -> Response:
        return JSONResponse({"object": "list", "data": [self._model_record()]})

    async def model(self, request: HttpRequest) -> Response:
        self._check_model(request.path_params["model"])
        return JSONResponse(self._model_record())

    async def upload(self, request: HttpRequest) -> Response:
        with self._bodies.received(request) as received, _form_errors():
            form = await received.form(max_files=1, max_fields=10)
        try:
            file = form.get("file")
            if file is None or isinstance(file, str):
                raise RequestError("the form has no file", param="file")
            with self._uploads.writer(file.filename or "video") as writer:
                while piece := await file.read(1 << 20):
                    await run_in_threadpool(writer.write, piece)
                upload = await run_in_threadpool(writer.finish)
        finally:
            await form.close()
        return JSONResponse(upload.record)

    async def files(self, _: HttpRequest) -> Response:
        records = [upload.record for upload in self._uploads.list()]
        return JSONResponse({"object": "list", "data": records, "has_more": False})

    async def file(self, request: HttpRequest) -> Response:
        return JSONResponse(self._uploads.get(request.path_params["id"]).record)

    async def remove(self, request: HttpRequest) -> Response:
        file_id = request.path_params["id"]
        self._uploads.remove(file_id)
        return JSONResponse({"id": file_id, "object": "file", "deleted": True})

    async def health(self, _: HttpRequest) -> Response:
        state = "loaded" if self.engine.panda else "not loaded"
        return JSONResponse({"status": "ok", "model": self.settings.model, "weights": state})

    async def metrics(self, _: HttpRequest) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def body(self, request: HttpRequest) -> bytes:
        with self._bodies.received(request) as received:
            return await received.body()

    async def json(self, request: HttpRequest) -> object:
        return await run_in_threadpool(parse_json, await self.body(request))

    async def _begin(self, asked: ChatRequest, path: Path, answering: Answering) -> Result:
        """The first result of an answer that is streamed, else the whole answer."""
        key, frames = await self._look(asked, path)
        answering.ticket = self.engine.submit(key, frames, asked.asked, answering.deliver)
        return await (answering.first() if asked.stream else answering.last())

    async def look(
        self, asked: ClipRequest, used: set[str] | None = None
    ) -> "tuple[ClipKey, Frames]":
        """The frames that a request is about; a PandaError if they cannot be read.

        `used` is a set of `Uploads.using`.
        """
        path = await run_in_threadpool(self.find, asked.video, used)
        return await self._look(asked, path)

    def using_uploads(self) -> AbstractContextManager[set[str]]:
        """See `Uploads.using`."""
        return self._uploads.using()

    async def _look(self, asked: ClipRequest, path: Path) -> "tuple[ClipKey, Frames]":
        clip = asked.clip(path)
        try:
            key = ClipKey.of(clip, asked.num_frames, asked.system)
            return key, await self.read(key)
        except OSError as error:
            raise RequestError(f"{describe(asked.video)} cannot be read") from error
        except PandaError as error:  # names of folders on this machine are not told
            shown = copy(error)  # others may wait for the same frames
            shown.message = error.message.replace(str(path), describe(asked.video))
            raise shown from error

    def find(self, source: VideoSource, used: set[str] | None = None) -> Path:
        """The file of a video; a RequestError if it cannot be read. `used`: see `Uploads.using`."""
        if source.file_id:
            return self._uploads.get(source.file_id, used).path
        if source.data:
            return self._uploads.from_base64(source.data, used).path
        return self.folders.find(source.address)

    async def read(self, key: ClipKey, *, limited: bool = True) -> "Frames":
        """Read frames, and keep the latest."""
        if (known := self.known_frames(key)) is not None:
            return known
        clip, number = key.clip, key.num_frames
        frames = await self._readers.read(clip, number, key.version, limited=limited)
        self.keep(key, frames)
        return frames

    def keep(self, key: ClipKey, frames: "Frames") -> None:
        """Keep frames for questions after a look at them: the latest, and others as they fit."""
        self._read[key] = frames
        self._read.move_to_end(key)
        held = sum(each.pixels.nbytes for each in self._read.values())
        while held > _READ_BYTES and len(self._read) > 1:
            held -= self._read.popitem(last=False)[1].pixels.nbytes

    def known_frames(self, key: ClipKey) -> "Frames | None":
        """Frames that were asked about or read before, while they are kept."""
        if key in self._read:
            self._read.move_to_end(key)
        return self.engine.frames(key) or self._read.get(key)

    def count(self, result: Result) -> None:
        """Count a request that has ended, for the metrics."""
        self._metrics.requests.inc()
        self._metrics.count(result)

    async def _events(
        self, asked: ChatRequest, answering: "Answering", first: Result
    ) -> AsyncIterator[dict[str, Any]]:
        chunks = Chunks(asked, self.settings.model)
        yield chunks.first()
        result = first
        while isinstance(result, str):
            yield chunks.piece(result)
            result = await answering.next()
        self._metrics.count(result)
        if isinstance(result, PandaError):
            yield error_object(result)[1]
        elif isinstance(result, Answer):
            for chunk in chunks.last(result):
                yield chunk

    def _check_model(self, name: str) -> None:
        if name != self.settings.model:
            what = f"the model {name[:80]!r} is not here: {self.settings.model} is"
            raise RequestError(what, status=404, code="model_not_found", param="model")

    def _model_record(self) -> dict[str, Any]:
        return {"id": self.settings.model, "object": "model", "created": 0, "owned_by": "panda"}


class _Metrics:
    """Counters for Prometheus."""

    def __init__(self, engine: Engine) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("panda_requests", "Chat completions begun", registry=registry)
        self.tokens = Counter("panda_answer_tokens", "Tokens of answers", registry=registry)
        self.errors = Counter("panda_errors", "Answers that failed midway", registry=registry)
        self.first_token = Histogram(
            "panda_first_token_seconds", "To the first token of a stream", registry=registry
        )
        running = Gauge("panda_requests_running", "Waiting or running now", registry=registry)
        running.set_function(lambda: engine.requests)
        clips = Gauge("panda_clips", "Clips whose prefix is in memory", registry=registry)
        clips.set_function(lambda: engine.clips)

    def count(self, result: Result) -> None:
        if isinstance(result, Answer):
            self.tokens.inc(result.stats.answer_tokens)
        elif isinstance(result, PandaError):
            self.errors.inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)


async def _panda_error(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, PandaError)
    return error_response(error)


async def _client_gone(_: HttpRequest, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)  # not sent; the exception would be logged as a fault


async def _fault(_: HttpRequest, error: Exception) -> Response:  # noqa: ARG001
    return error_response(PandaError("the server failed; its log says why"))


@contextmanager
def _form_errors() -> Iterator[None]:
    """Refuse a form whose parts have an encoding that fails in ways of its own."""
    try:
        yield
    except (UnicodeError, ValueError) as error:
        raise RequestError("the form cannot be decoded") from error


async def _http_error(request: HttpRequest, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = {404: "there is no", 405: f"{request.method} is not allowed for"}.get(
        status, "cannot use"
    )
    return error_response(
        RequestError(f"{what} {request.url.path[:200]}", status=status, code=None)
    )
