"""A Model Context Protocol server over standard input and output.

The package `mcp` speaks the protocol: https://modelcontextprotocol.io/specification. Nothing else
reads the input or writes to the output: no library that prints, and no child process.
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, cast

import anyio
from mcp import types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from pandacli import __version__
from pandacli.background import Say
from pandacli.errors import PandaError
from pandacli.server.app import ServerSettings, Service
from pandacli.server.tools import Result, Tools, text_content

if TYPE_CHECKING:
    from pandacli.inference.panda import Panda

_MOST_LINE = 64 << 20  # bytes; a longer line is no message, and is ignored in pieces

_log = logging.getLogger(__name__)


def serve_stdio(
    settings: ServerSettings, load: "Callable[[Say], Panda]", on_end: Callable[[], None]
) -> None:
    """Serve until the input ends; `on_end` is called then, before what still runs is waited for.

    The model is loaded by the first call that needs it.

    Raises:
        BrokenPipeError: The client no longer reads the output.
    """
    reading, writing = _take_streams()
    gone = False
    try:
        asyncio.run(_serve(settings, load, on_end, reading, writing))
    except* BrokenPipeError:
        gone = True
    if gone:
        raise BrokenPipeError


def make_server(tools: Tools) -> Server[Any]:
    """A server with these tools, for any transport."""

    async def list_tools(_: ServerRequestContext[Any], __: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools.described)

    async def call_tool(
        context: ServerRequestContext[Any], asked: types.CallToolRequestParams
    ) -> Result:
        report = context.session.report_progress
        try:
            return await tools.call(asked.name, asked.arguments or {}, report)
        except PandaError as error:
            text = "; ".join(filter(None, (error.message, error.hint, error.command)))
        except Exception:
            _log.exception("a call failed")
            text = "the server failed to answer: its log says why"
        return Result(content=[text_content(text)], is_error=True)

    return Server(
        "panda",
        title="Panda",
        version=__version__,
        instructions=tools.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def _serve(
    settings: ServerSettings,
    load: "Callable[[Say], Panda]",
    on_end: Callable[[], None],
    reading: BinaryIO,
    writing: TextIO,
) -> None:
    with Service(settings, lambda: load(tools.say)) as service, ExitStack() as stack:
        stack.callback(on_end)
        tools = Tools(service)
        server = make_server(tools)
        lines = cast("anyio.AsyncFile[str]", _Lines(reading))
        async with stdio_server(lines, anyio.wrap_file(writing)) as (messages, answers):
            await server.run(messages, answers, server.create_initialization_options())


def _take_streams() -> tuple[BinaryIO, TextIO]:
    """The input and the output, away from child processes and from what prints."""
    reading = os.fdopen(os.dup(0), "rb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    writing = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", newline="\n")
    sys.stdout = sys.stderr
    return reading, writing


class _Lines:
    """The lines of the input, read by a thread that no shutdown waits for."""

    def __init__(self, reading: BinaryIO) -> None:
        self._lines: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._loop = asyncio.get_running_loop()
        Thread(target=self._read, args=[reading], name="panda input", daemon=True).start()

    def _read(self, reading: BinaryIO) -> None:
        with suppress(RuntimeError):  # the loop is closed
            line = None
            while line != b"":
                line = reading.readline(_MOST_LINE)
                asyncio.run_coroutine_threadsafe(self._lines.put(line), self._loop).result()

    async def __aiter__(self) -> AsyncIterator[str]:
        while line := await self._lines.get():
            yield line.decode("utf-8", "replace")
