"""Connections: how much clients may send, and how slowly; open files; and how a server ends."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.requests import Request
from starlette.types import Message
from uvicorn.protocols.http.h11_impl import H11Protocol

from pandacli.server.engine import BusyError
from pandacli.server.protocol import RequestError

_HEADER_SECONDS = 10.0  # until the headers of a request are complete
_BODY_SECONDS = 20.0  # until the first bytes of a body; further ones come at `_SLOWEST` at least
_SLOWEST = 20_000  # bytes a second
_TOGETHER = 2  # bodies of the largest size that are held at a time
_FILES = 65_536  # open files and connections


class Bodies:
    """Limits the bodies that are received: each, all that are held together, and their time."""

    def __init__(self, most: int) -> None:
        """`most` bytes of a body; zero is no limit."""
        self._most = most
        self.held = 0  # bytes

    @contextmanager
    def received(self, request: Request) -> Iterator[Request]:
        """The request with a limited body, which counts as held until the block ends.

        Reading it raises a RequestError if it is too large or slow, and a BusyError if others leave
        no room for it.
        """
        with_length = request.headers.get("content-length", "0")
        self._check(int(with_length) if with_length.isdecimal() else 0, 0)
        started, counted = monotonic(), 0

        async def receive() -> Message:
            nonlocal counted
            left = started + _BODY_SECONDS + counted / _SLOWEST - monotonic()
            try:
                async with asyncio.timeout(max(left, 0)):
                    message = await request.receive()
            except TimeoutError as error:
                raise RequestError("the body came too slowly", status=408) from error
            length = len(message.get("body", b""))
            counted, self.held = counted + length, self.held + length
            self._check(counted, self.held)
            return message

        try:
            yield Request(request.scope, receive)
        finally:
            self.held -= counted

    def _check(self, length: int, held: int) -> None:
        if self._most and length > self._most:
            raise RequestError("the body is too large", status=413, code="body_too_large")
        if self._most and held > _TOGETHER * self._most:
            raise BusyError("other requests leave no room for the body", "try again later")


class PatientProtocol(H11Protocol):
    """HTTP with a limit on the time for headers, and for the rest of a body that was refused."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Set a time limit while headers are due, or a body that is not read."""
        state = self.conn.their_state
        is_answered = self.cycle is not None and self.cycle.response_complete
        if state is h11.IDLE or (state is h11.SEND_BODY and is_answered):
            if self._patience is None:
                self._patience = self.loop.call_later(_HEADER_SECONDS, self._close)
        elif self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _close(self) -> None:
        self.transport.close()


class DrainingServer(uvicorn.Server):
    """Lets answers in flight end on a first signal, and ends at once on a second one."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)


def allow_many_files() -> None:
    """Raise the soft limit on open files, which is often too low for many connections."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
