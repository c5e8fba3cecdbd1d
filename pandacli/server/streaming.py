"""Answers on their way from the engine's thread to a client, which may go at any time."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pandacli.errors import PandaError
from pandacli.inference.spec import Answer, Scores
from pandacli.server.clips import Result, Ticket

_Result = TypeVar("_Result")
_SEND_SECONDS = 60.0  # in which a client takes a part of a stream


class Answering:
    """Results of the engine, awaited on the event loop."""

    def __init__(self, *, stream: bool) -> None:
        """`stream`: whether pieces are wanted, each of which wakes the event loop."""
        self.ticket: Ticket | None = None
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._results: asyncio.Queue[Result] = asyncio.Queue()

    def deliver(self, result: Result) -> None:
        """Take a result on the engine's thread."""
        if isinstance(result, str) and not self._stream:
            return
        with suppress(RuntimeError):  # the loop is closed: the server has stopped
            self._loop.call_soon_threadsafe(self._results.put_nowait, result)

    def cancel(self) -> None:
        if self.ticket is not None:
            self.ticket.cancel()

    async def next(self) -> Result:
        """The next result, also if it is an error."""
        return await self._results.get()

    async def first(self) -> Result:
        """The first result; an error is raised, as nothing has been sent yet."""
        result = await self.next()
        if isinstance(result, PandaError):
            raise result
        return result

    async def last(self) -> Answer | Scores:
        """The whole answer; an error is raised."""
        while isinstance(result := await self.first(), str):
            pass
        assert isinstance(result, Answer | Scores)
        return result


async def until_gone(request: HttpRequest, result: Awaitable[_Result]) -> _Result:
    """Await a result; if the client goes first, cancel it and raise a ClientDisconnect."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    waiting, watching = asyncio.ensure_future(result), asyncio.create_task(gone())
    try:
        await asyncio.wait({waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        raise ClientDisconnect
    finally:
        watching.cancel()
        waiting.cancel()


class EventStream(Response):
    """Server-sent events of JSON objects; `close` is called at the end, also if the client goes."""

    def __init__(self, events: AsyncIterator[dict[str, Any]], close: Callable[[], None]) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._events, self._close = events, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stream() -> None:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            async for event in self._events:
                await part(json.dumps(event, ensure_ascii=False))
            await part("[DONE]")
            await send({"type": "http.response.body", "body": b""})

        async def part(data: str) -> None:
            body = f"data: {data}\n\n".encode("utf-8", "surrogatepass")
            async with asyncio.timeout(_SEND_SECONDS):
                await send({"type": "http.response.body", "body": body, "more_body": True})

        try:
            with suppress(ClientDisconnect, TimeoutError, OSError):
                await until_gone(HttpRequest(scope, receive), stream())
        finally:
            self._close()
