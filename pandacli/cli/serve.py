"""`panda serve`: answer over HTTP, with a model that stays loaded."""

import os
from pathlib import Path
from typing import Annotated, Any

from pandacli.cli import config, options, signals, startup
from pandacli.cli.config import not_blank, whole_number
from pandacli.errors import UsageError
from pandacli.server.listening import Address, url
from pandacli.terminal.console import Screen
from pandacli.units import byte_count
from pandacli.video.clip import parse_length

PORT = 7263
_SERVER, _LIMITS = "Server", "Limits"
_PACKAGES = ("starlette", "uvicorn", "prometheus-client", "python-multipart")  # of the extra
_DRAIN_SECONDS = 30  # for answers in flight at the end

_HOST = "Address to listen on; others than the loopback need PANDA_API_KEY. [default: 127.0.0.1]"
Host = Annotated[str, options.parsed(_SERVER, "--host ADDRESS", not_blank, _HOST)]
_PORT = "Port to listen on; 0 finds a free one. [default: 7263]"
Port = Annotated[int, options.parsed(_SERVER, "--port N", whole_number(0, 65535), _PORT)]
_MEDIA = "Requests may name files in this folder and below; repeat it for more folders."
MediaDir = Annotated[list[str] | None, options.plain(_SERVER, "--media-dir FOLDER", _MEDIA)]
_KEEP_ALIVE = "Free the model after this time without a request, as 10m. [default: never]"
KeepAlive = Annotated[
    Any, options.parsed(_SERVER, "--keep-alive TIME", config.keep_alive, _KEEP_ALIVE)
]
_MEMORY = "Memory for the prefixes of recent clips. [default: 1GB]"
Memory = Annotated[int, options.parsed(_LIMITS, "--prefix-memory SIZE", byte_count, _MEMORY)]
_REQUESTS = "Most requests at a time, waiting ones included. [default: 256]"
MaxRequests = Annotated[
    int, options.parsed(_LIMITS, "--max-requests N", whole_number(1, 100_000), _REQUESTS)
]
_UPLOAD = "Largest file or request body; 0 for no limit. [default: 512MB]"
MaxUpload = Annotated[int, options.parsed(_LIMITS, "--max-upload SIZE", byte_count, _UPLOAD)]
_LENGTH = "Longest video. [default: 6:00:00]"
MaxLength = Annotated[float, options.parsed(_LIMITS, "--max-length TIME", parse_length, _LENGTH)]
_PIXELS = "Largest picture of a video: width times height. [default: 9437184]"
MaxPixels = Annotated[
    int, options.parsed(_LIMITS, "--max-pixels N", whole_number(1, 10**9), _PIXELS)
]
_READ = "Longest time for reading the frames of a video. [default: 2:00]"
ReadTimeout = Annotated[float, options.parsed(_LIMITS, "--read-timeout TIME", parse_length, _READ)]


def serve(
    host: Host = "127.0.0.1",
    port: Port = PORT,
    media_dir: MediaDir = None,
    keep_alive: KeepAlive = None,
    model: options.Model = options.MODEL,
    quant: options.Quant = "auto",
    engine: options.Engine = "auto",
    device: options.Device = "auto",
    offline: options.Offline = False,
    prefix_memory: Memory = 1_000_000_000,
    max_requests: MaxRequests = 256,
    max_upload: MaxUpload = 512_000_000,
    max_length: MaxLength = 6 * 3600.0,
    max_pixels: MaxPixels = 4096 * 2304,
    read_timeout: ReadTimeout = 120.0,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Serve an OpenAI-compatible endpoint.

    Clients of OpenAI's chat completions can ask about videos: sent with the
    request, uploaded before, or in a folder that --media-dir names.

    Only programs on this machine can connect. For --host with any other
    address, set PANDA_API_KEY; clients send it as their API key. Ctrl-C and
    SIGTERM let running answers end, for up to 30 seconds.
    """
    _require_extra()
    address = Address.resolve(host, port)
    key = _api_key(address)
    folders = [_folder(name) for name in media_dir or ()]
    screen = Screen(quiet=quiet)
    if offline:
        startup.go_offline()
    loading = startup.Loading(
        options.Looking(model=model, quant=quant, engine=engine, device=device).spec()
    )
    startup.offer_download(loading, screen)
    size = startup.image_size(loading)
    listening = address.listen()
    with screen.status(f"loading {loading.name}"):
        plan = loading.plan()
        import uvicorn

        from pandacli import Panda
        from pandacli.server.app import ServerSettings, create_app
        from pandacli.server.media import Limits

        settings = ServerSettings(
            model=Path(loading.name).name,
            image_size=size,
            media=folders,
            limits=Limits(
                pixels=max_pixels,
                seconds=max_length,
                read_seconds=read_timeout,
                upload=max_upload,
            ),
            api_key=key,
            hosts=tuple(address.names),
            most_requests=max_requests,
            budget=prefix_memory,
            keep_alive=keep_alive,
        )
        app = create_app(settings, lambda: Panda.from_plan(plan))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
        )
    screen.notice(f"{settings.model} is served at {url(listening)}/v1; Ctrl-C ends it")
    with signals.left_to_an_event_loop():
        server.run(sockets=[listening])


def _require_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in _PACKAGES if not find_spec(name.replace("-", "_"))]
    if missing:
        what = f"panda serve needs packages that are not installed: {', '.join(missing)}"
        raise UsageError(what, command="pip install 'pandacli[serve]'")


def _api_key(address: Address) -> str | None:
    """The key that clients must send; a UsageError if one is needed and there is none."""
    key = os.environ.get("PANDA_API_KEY", "")
    if not key and not address.is_loopback:
        what = f"{address.name} can be reached from other machines, and PANDA_API_KEY is not set"
        raise UsageError(what, "set it to a secret text, which clients send as their API key")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError("PANDA_API_KEY may have letters, digits and signs of ASCII, and no spaces")
    return key or None


def _folder(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_dir():
        raise UsageError(f"--media-dir: {name} is not a folder")
    return path
