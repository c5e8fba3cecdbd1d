"""The page at `/`, and what it needs beside the endpoint: videos to choose, frames, searches.

A page cannot send an API key with its own address or with that of a `<video>`. So the files of the
page are public, and a video is played from an address that carries a proof that it was given out.
"""

import base64
import hmac
import io
import json
import secrets
from contextlib import ExitStack
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from pandacli.server.media import describe
from pandacli.server.protocol import ClipRequest, Fields, RequestError, VideoSource
from pandacli.server.search import Searches, parse_search
from pandacli.server.streaming import EventStream, until_gone
from pandacli.video.windows import span_of

if TYPE_CHECKING:
    from pandacli.server.app import Service
    from pandacli.video import Frames

_FILES, _VIDEO = "/panda/page/", "/panda/video"
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
# whatever is in the file, a browser that opens its address shows no page of this origin
_VIDEO_HEADERS = {**_HEADERS, "content-security-policy": "default-src 'none'; sandbox"}
_MEDIA_TYPES = {
    **{".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm"},
    **{".mkv": "video/x-matroska", ".ogv": "video/ogg"},
}
_QUALITY = 85  # of the JPEG of a frame


def is_public(path: str) -> bool:
    """Whether an address needs no API key."""
    return path in ("/", _VIDEO) or path.startswith(_FILES)


def page_routes(service: "Service") -> list[Route]:
    """The routes of the page of a server."""
    page = _Page(service)
    return [
        Route("/", page.index),
        Route(_FILES + "{name}", page.file),
        Route("/panda/media", page.media),
        Route("/panda/frames", page.frames, methods=["POST"]),
        Route("/panda/when", page.when, methods=["POST"]),
        Route(_VIDEO, page.video),
    ]


class _Page:
    def __init__(self, service: "Service") -> None:
        self._service, settings = service, service.settings
        timeout = settings.limits.read_seconds or None
        self._searches = Searches(service.engine, settings.image_size, timeout)
        self._secret = secrets.token_bytes(32)

    async def index(self, _: HttpRequest) -> Response:
        return _page_file("index.html")

    async def file(self, request: HttpRequest) -> Response:
        return _page_file(request.path_params["name"])

    async def media(self, _: HttpRequest) -> Response:
        """Names of videos below the media folders, each the url of one, and the largest upload."""
        names = await run_in_threadpool(lambda: [*dict.fromkeys(self._service.folders.names())])
        return _json({"videos": names, "upload_limit": self._service.settings.limits.upload})

    async def frames(self, request: HttpRequest) -> Response:
        """The frames of a clip as pictures, with their times in seconds."""
        asked = _parse_frames(await self._service.json(request))
        with self._service.engine.place(), self._service.using_uploads() as used:
            _, frames = await until_gone(request, self._service.look(asked, used))
        record = await run_in_threadpool(_frames_record, frames)
        return _json(record | {"video": self._address(asked.video)})

    async def when(self, request: HttpRequest) -> Response:
        """Search a film: server-sent events, those of `Search`."""
        asked = parse_search(await self._service.json(request))
        with ExitStack() as stack:
            used = stack.enter_context(self._service.using_uploads())
            with self._service.engine.place():  # within the limits, or an error
                key, frames = await until_gone(request, self._service.look(asked, used))
            span = span_of(key.clip, frames.info.duration)
            search = self._searches.begin(key.clip.path, span, asked, describe(asked.video))
            stack.callback(search.cancel)
            first = await until_gone(request, search.first())
            return EventStream(search.events(first), stack.pop_all().close)

    async def video(self, request: HttpRequest) -> Response:
        """The file of a video, or a range of its bytes."""
        name, proof = (request.query_params.get(key, "") for key in ("name", "proof"))
        if not hmac.compare_digest(proof.encode(), self._proof(name).encode()):
            raise RequestError("this address was not given out", status=403, code="wrong_proof")
        text = base64.urlsafe_b64decode(name).decode("utf-8", "surrogatepass")
        file_id, _, address = text.partition("\0")
        path = await run_in_threadpool(self._service.find, VideoSource(address, "", file_id))
        kind = _MEDIA_TYPES.get(PurePosixPath(address).suffix.lower(), "application/octet-stream")
        return FileResponse(path, media_type=kind, headers=_VIDEO_HEADERS)

    def _address(self, source: VideoSource) -> str | None:
        """Where a browser plays a video; None for one that was sent along."""
        if source.data:
            return None
        text = f"{source.file_id}\0{source.address}".encode("utf-8", "surrogatepass")
        name = base64.urlsafe_b64encode(text).decode()
        return f"{_VIDEO}?{urlencode({'name': name, 'proof': self._proof(name)})}"

    def _proof(self, name: str) -> str:
        return hmac.new(self._secret, name.encode(), "sha256").hexdigest()


def _parse_frames(body: object) -> ClipRequest:
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    fields = Fields(body)
    video, (times, at, num_frames) = fields.take_video(), fields.take_times()
    fields.refuse_the_rest()
    return ClipRequest(video, times, at, num_frames, None)


def _frames_record(frames: "Frames") -> dict[str, Any]:
    from PIL import Image

    pictures = []
    for pixels, seconds in zip(frames.pixels, frames.times, strict=True):
        written = io.BytesIO()
        Image.fromarray(pixels).save(written, "JPEG", quality=_QUALITY)
        data = base64.b64encode(written.getvalue()).decode()
        pictures.append({"time": seconds, "picture": f"data:image/jpeg;base64,{data}"})
    info = frames.info
    about = {"width": info.width, "height": info.height, "fps": info.fps, "codec": info.codec}
    return {
        "duration": info.duration,
        **about,
        "frames": pictures,
        "notices": list(frames.notices),
    }


def _json(record: dict[str, Any]) -> Response:
    """JSON in ASCII: names of files may have bytes that are no text."""
    return Response(json.dumps(record), media_type="application/json")


@cache
def _page_files() -> dict[str, tuple[bytes, str]]:
    folder = files("pandacli.server") / "page"
    return {
        file.name: (file.read_bytes(), _TYPES[Path(file.name).suffix])
        for file in folder.iterdir()
        if Path(file.name).suffix in _TYPES
    }


def _page_file(name: str) -> Response:
    if name not in _page_files():
        raise RequestError(f"the page has no file {name[:80]!r}", status=404)
    content, kind = _page_files()[name]
    return Response(content, media_type=kind, headers=_HEADERS)
