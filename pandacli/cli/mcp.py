"""`panda mcp`: tools that look at videos, for an assistant that speaks MCP."""

from pathlib import Path

from pandacli.cli import options, signals, startup
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen

_PACKAGES = ("mcp", "starlette", "prometheus-client", "python-multipart")  # of the extra
_EXAMPLE = "panda mcp --media-dir ~/Videos"


def mcp(
    how: options.Serving,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Let an assistant look at videos (MCP).

    A Model Context Protocol server over standard input and output, which an
    editor or an assistant starts. Its tools ask about a video, return frames
    of it, and find moments in films. They read only files in the folders of
    --media-dir and below. The model is loaded when a tool first needs it.
    """
    startup.require_packages("mcp", _PACKAGES)
    folders = how.folders()
    if not folders:
        hint = "name the folder with the videos that may be read:"
        raise UsageError("--media-dir is missing", hint, command=_EXAMPLE)
    screen = Screen(quiet=quiet)
    if how.offline:
        startup.go_offline()
    loading = startup.Loading(how.spec())
    size = startup.image_size(loading)
    from pandacli.server.app import ServerSettings
    from pandacli.server.mcp import serve_stdio

    settings = ServerSettings(
        model=Path(loading.name).name,
        image_size=size,
        media=folders,
        limits=how.limits(),
        budget=how.prefix_memory,
        keep_alive=how.keep_alive,
        preload=False,
    )
    screen.notice(f"{settings.model} waits for MCP messages on standard input")
    # a forward pass that still runs at the end is not waited for
    serve_stdio(settings, loading.end, lambda: signals.end(0))
