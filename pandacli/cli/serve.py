"""`panda serve`: answer over HTTP, with a model that stays loaded."""

import os
import socket
from pathlib import Path
from typing import Annotated, Any

from pandacli.cli import config, options, signals, startup
from pandacli.cli.config import not_blank, whole_number
from pandacli.errors import DeviceError, UsageError
from pandacli.terminal.console import Screen
from pandacli.units import byte_count
from pandacli.video.clip import parse_length

PORT = 7263
_SERVER, _LIMITS = "Server", "Limits"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DRAIN_SECONDS = 30  # for answers in flight at the end

Host = Annotated[
    str,
    options.parsed(_SERVER, "--host NAME", not_blank, "Address to listen on. [default: 127.0.0.1]"),
]
Port = Annotated[
    int,
    options.parsed(
        _SERVER, "--port N", whole_number(0, 65535), "0 for a free one. [default: 7263]"
    ),
]
_MEDIA = "Requests may name files below this folder; can be repeated."
MediaDir = Annotated[list[str] | None, options.plain(_SERVER, "--media-dir FOLDER", _MEDIA)]
_KEEP_ALIVE = "Free an idle model after this time, as 10m. [default: never]"
KeepAlive = Annotated[
    Any, options.parsed(_SERVER, "--keep-alive TIME", config.keep_alive, _KEEP_ALIVE)
]
_MEMORY = "Memory for the prefixes of clips. [default: 1GB]"
Memory = Annotated[int, options.parsed(_LIMITS, "--memory SIZE", byte_count, _MEMORY)]
_REQUESTS = "Requests at a time, waiting ones included. [default: 256]"
MaxRequests = Annotated[
    int, options.parsed(_LIMITS, "--max-requests N", whole_number(1, 100_000), _REQUESTS)
]
_UPLOAD = "Of a file or a request; 0 for any. [default: 512MB]"
MaxUpload = Annotated[int, options.parsed(_LIMITS, "--max-upload SIZE", byte_count, _UPLOAD)]
_LENGTH = "Of a video. [default: 6:00:00]"
MaxLength = Annotated[float, options.parsed(_LIMITS, "--max-length TIME", parse_length, _LENGTH)]
_PIXELS = "Of a picture in a video. [default: 9437184]"
MaxPixels = Annotated[
    int, options.parsed(_LIMITS, "--max-pixels N", whole_number(1, 10**9), _PIXELS)
]
_READ = "That reading the frames of a video may take. [default: 2:00]"
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
    memory: Memory = 1_000_000_000,
    max_requests: MaxRequests = 256,
    max_upload: MaxUpload = 512_000_000,
    max_length: MaxLength = 6 * 3600.0,
    max_pixels: MaxPixels = 4096 * 2304,
    read_timeout: ReadTimeout = 120.0,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Serve an OpenAI-compatible endpoint.

    Any client of OpenAI's chat completions can ask about videos: with a
    data: address, an uploaded file, or a file below --media-dir.

    It listens on the loopback address. For any other, set PANDA_API_KEY:
    clients then send it as their API key. SIGTERM and Ctrl-C let answers in
    flight end first.
    """
    _require_extra()
    key = os.environ.get("PANDA_API_KEY") or None
    if host not in _LOOPBACK and key is None:
        what = f"whoever reaches {host} could use this server"
        raise UsageError(what, "set a key that clients must send, as", command="PANDA_API_KEY=...")
    folders = [_folder(name) for name in media_dir or ()]
    screen = Screen(quiet=quiet)
    if offline:
        startup.go_offline()
    loading = startup.Loading(
        options.Looking(model=model, quant=quant, engine=engine, device=device).spec()
    )
    startup.offer_download(loading, screen)
    size = startup.image_size(loading)
    listening = _listen(host, port)
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
            hosts=() if _is_any(host) else (*_LOOPBACK, host.lower()),
            most_requests=max_requests,
            budget=memory,
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
    name, number = listening.getsockname()[:2]
    shown = f"[{name}]" if ":" in name else name
    screen.notice(f"{settings.model} is served at http://{shown}:{number}/v1 (Ctrl-C ends it)")
    with signals.left_to_an_event_loop():
        server.run(sockets=[listening])


def _require_extra() -> None:
    from importlib.util import find_spec

    missing = [
        name for name in ("starlette", "uvicorn", "prometheus_client") if not find_spec(name)
    ]
    if missing:
        what = f"the server needs packages that are not installed: {', '.join(missing)}"
        raise UsageError(what, command="pip install 'pandacli[serve]'")


def _folder(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_dir():
        raise UsageError(f"--media-dir: {name} is not a folder")
    return path


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; a DeviceError if the address cannot be used."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        what = f"cannot listen on {host}, port {port}: {error.strerror or error}"
        raise DeviceError(what, "choose another one with --port, or 0 for a free one") from error
