"""`panda serve`: answer over HTTP, with a model that stays loaded."""

import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pandacli.cli import options, signals, startup
from pandacli.cli.config import not_blank, whole_number
from pandacli.errors import DeviceError, UsageError
from pandacli.server import local
from pandacli.server.listening import Address, url
from pandacli.terminal.console import Screen
from pandacli.units import byte_count

if TYPE_CHECKING:
    import socket

PORT = 7263
_PACKAGES = ("starlette", "uvicorn", "prometheus-client", "python-multipart")  # of the extra
DRAIN_SECONDS = 30  # for answers in flight at the end

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
_BACKGROUND = "Detach once the model is loaded; panda stop ends it."
Background = Annotated[bool, options.plain(options.SERVER, "--background", _BACKGROUND)]
_STOPPED = "Only servers of this model."


def serve(
    how: options.Serving,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    max_requests: MaxRequests = 256,
    max_upload: MaxUpload = 512_000_000,
    background: Background = False,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Serve an OpenAI-compatible endpoint and a page.

    A browser shows the page at the server's address: choose a video, look at
    its frames, ask.

    Clients of OpenAI's chat completions can ask about videos: sent with the
    request, uploaded before, or in a folder that --media-dir names.

    Only programs on this machine can connect. For --host with any other
    address, set PANDA_API_KEY; clients send it as their API key. Ctrl-C and
    SIGTERM let running answers end, for up to 30 seconds.

    The commands ask, chat, batch and when use a server of yours that has the
    model they need; see their option --server.
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
    if background:
        _start(local.Server.of(how.spec()), screen)
        return
    listening = address.listen()
    with screen.status(f"loading {loading.name}"):
        plan = loading.plan()
        import uvicorn

        from pandacli import Panda
        from pandacli.server.app import ServerSettings, create_app
        from pandacli.server.connections import DrainingServer, PatientProtocol, allow_many_files

        allow_many_files()
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
        server = DrainingServer(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                ws="none",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
        )
    with ExitStack() as opened:
        local_socket = _publish(local.Server.of(how.spec(), plan), url(listening), opened, screen)
        screen.notice(f"{settings.model} is served at {url(listening)}/v1; Ctrl-C ends it")
        screen.notice(f"its page is {url(listening)}/")
        with signals.left_to_an_event_loop():
            server.run(sockets=[each for each in (listening, local_socket) if each])


def stop(
    model: Annotated[str | None, options.argument("[MODEL]", _STOPPED)] = None,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Stop the servers that panda serve started.

    Running answers end first, for up to 30 seconds. Only servers of this user
    are stopped, in the background or not.
    """
    screen = Screen(quiet=quiet)
    wanted = None if model is None else local.model_name(model)
    found = [each for each in local.running() if wanted in (None, each.model)]
    if not found:
        screen.notice("no server is running" + (f" with {model}" if model else ""))
    for server in found:
        with screen.status(f"stopping {server.name}"):
            ended = local.stop(server)
        if not ended:
            raise DeviceError(f"{server.name} at {server.url} does not end", f"kill {server.pid}")
        screen.notice(f"stopped {server.name} at {server.url}")


def _publish(
    server: local.Server, address: str, opened: ExitStack, screen: Screen
) -> "socket.socket | None":
    """A socket for the commands of this user; without one, other clients are still served."""
    try:
        listening = opened.enter_context(local.published(server, address))
    except UsageError as error:
        screen.notice(f"--server auto will not find this server: {error.message}")
        return None
    if listening is None:
        screen.notice("another server of yours has this model: --server auto asks that one")
    return listening


def _start(server: local.Server, screen: Screen) -> None:
    """Start a server in the background; a UsageError if there is one already."""
    for each in local.running():
        if each.socket == server.socket:
            what = f"{each.name} is served already, at {each.url}"
            raise UsageError(what, "to start it with other options, first:", command="panda stop")
    with screen.status(f"loading {server.name}"):
        started = local.start(server, [word for word in sys.argv[1:] if word != "--background"])
    screen.notice(f"{server.name} is served at {started.url}/v1; panda stop ends it")
    screen.notice(f"its log is {started.log}")


def _api_key(address: Address) -> str | None:
    """The key that clients must send; a UsageError if one is needed and there is none."""
    key = os.environ.get("PANDA_API_KEY", "")
    if not key and not address.is_loopback:
        what = f"other machines can reach {address.name}, and PANDA_API_KEY is not set"
        raise UsageError(what, "set it to a secret text, which clients send as their API key")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError("PANDA_API_KEY may have letters, digits and signs of ASCII, and no spaces")
    return key or None
