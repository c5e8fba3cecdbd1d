"""`panda serve`: answer over HTTP, with a model that stays loaded."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pandacli.cli import options, signals, startup
from pandacli.cli.config import not_blank, whole_number
from pandacli.errors import UsageError
from pandacli.server.listening import Address, url
from pandacli.terminal.console import Screen
from pandacli.units import byte_count

PORT = 7263
_PACKAGES = ("starlette", "uvicorn", "prometheus-client", "python-multipart")  # of the extra
_DRAIN_SECONDS = 30  # for answers in flight at the end

_HOST = "Address to listen on; others than the loopback need PANDA_API_KEY. [default: 127.0.0.1]"
Host = Annotated[str, options.parsed(options.SERVER, "--host ADDRESS", not_blank, _HOST)]
_PORT = "Port to listen on; 0 finds a free one. [default: 7263]"
Port = Annotated[int, options.parsed(options.SERVER, "--port N", whole_number(0, 65535), _PORT)]
_REQUESTS = "Most requests at a time, waiting ones included. [default: 256]"
MaxRequests = Annotated[
    int, options.parsed(options.LIMITS, "--max-requests N", whole_number(1, 100_000), _REQUESTS)
]
_UPLOAD = "Largest file or request body; 0 for no limit. [default: 512MB]"
MaxUpload = Annotated[int, options.parsed(options.LIMITS, "--max-upload SIZE", byte_count, _UPLOAD)]


def serve(
    how: options.Serving,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    max_requests: MaxRequests = 256,
    max_upload: MaxUpload = 512_000_000,
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
    startup.require_packages("serve", _PACKAGES)
    address = Address.resolve(host, port)
    key = _api_key(address)
    folders = how.folders()
    screen = Screen(quiet=quiet)
    if how.offline:
        startup.go_offline()
    loading = startup.Loading(how.spec())
    startup.offer_download(loading, screen)
    size = startup.image_size(loading)
    listening = address.listen()
    with screen.status(f"loading {loading.name}"):
        plan = loading.plan()
        import uvicorn

        from pandacli import Panda
        from pandacli.server.app import ServerSettings, create_app

        settings = ServerSettings(
            model=Path(loading.name).name,
            image_size=size,
            media=folders,
            limits=replace(how.limits(), upload=max_upload),
            api_key=key,
            hosts=tuple(address.names),
            most_requests=max_requests,
            budget=how.prefix_memory,
            keep_alive=how.keep_alive,
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


def _api_key(address: Address) -> str | None:
    """The key that clients must send; a UsageError if one is needed and there is none."""
    key = os.environ.get("PANDA_API_KEY", "")
    if not key and not address.is_loopback:
        what = f"{address.name} can be reached from other machines, and PANDA_API_KEY is not set"
        raise UsageError(what, "set it to a secret text, which clients send as their API key")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError("PANDA_API_KEY may have letters, digits and signs of ASCII, and no spaces")
    return key or None
