"""The routes below `/panda/` that commands of `panda` use with `--server`; see `remote.py`.

Over the Unix socket, whose folder only its user may enter, every file is read that the server may
read. Over TCP a clip is an uploaded file, or the frames themselves.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from pandacli.errors import PandaError, UsageError
from pandacli.inference.spec import ScoreRequest, Scores, check_frame_count
from pandacli.server import wire
from pandacli.server.clips import ClipKey, Result, Ticket
from pandacli.server.engine import Engine
from pandacli.server.protocol import RequestError, VideoSource, error_object
from pandacli.server.streaming import EventStream, until_gone
from pandacli.server.wire import Fields
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.inference.panda import Panda
    from pandacli.server.app import Service
    from pandacli.video import Frames

_Endpoint = Callable[[HttpRequest], Awaitable[Response]]

_MOST_AT_ONCE = 1024  # requests of one message
_SENT = (0, 0)  # the version of a clip that was sent as frames


def native_routes(service: "Service") -> list[Route]:
    native = _Native(service)
    facts = {"model": native.model, "identity": native.identity, "memory": native.memory}
    questions = {
        "open": native.open,
        "clips": native.keep_frames,
        "prefix": native.prefix,
        "room": native.room,
        "choice": native.choice,
        "answers": native.answers,
        "windows": native.windows,
    }

    def route(name: str, endpoint: _Endpoint, method: str) -> Route:
        return Route(f"/panda/{name}", _answered(endpoint), methods=[method])

    return [
        *(route(name, endpoint, "GET") for name, endpoint in facts.items()),
        *(route(name, endpoint, "POST") for name, endpoint in questions.items()),
    ]


def is_from_socket(scope: Scope) -> bool:
    """Whether a request came over the Unix socket; no header can claim that."""
    server = scope.get("server")
    return server is not None and server[1] is None


class _Native:
    def __init__(self, service: "Service") -> None:
        self._service = service
        self._facts: Fields | None = None  # of the model; they stay when its weights are freed

    @property
    def _engine(self) -> Engine:
        return self._service.engine

    async def model(self, _: HttpRequest) -> Response:
        if self._facts is None:
            self._facts = await run_in_threadpool(self._engine.run, _facts)
        return _json(self._facts)

    async def identity(self, _: HttpRequest) -> Response:
        panda = await run_in_threadpool(self._engine.run, lambda panda: panda)
        # all of the checkpoint may have to be read
        return _json({"sha256": await run_in_threadpool(lambda: panda.identity)})

    async def memory(self, _: HttpRequest) -> Response:
        return _json(await run_in_threadpool(self._engine.run, _memory))

    async def open(self, request: HttpRequest) -> Response:
        """Read the frames of a clip, if they are not known, and say which these are."""
        *_, frames = await self._asked(request)
        return _json(wire.frame_fields(frames))

    async def keep_frames(self, request: HttpRequest) -> Response:
        """Keep frames that were sent, under the digest of their pixels."""
        fields, (frames, *others) = await self._unpacked(request)
        with _understood():
            if others:
                raise ValueError("frames of one clip are expected")
            number, system = _prompt(wire.sub_fields(fields, "clip"))
        digest = await run_in_threadpool(wire.frames_id, frames)
        self._service.keep(_sent_key(digest, number, system), frames)
        return _json({"id": digest})

    async def prefix(self, request: HttpRequest) -> Response:
        """How many tokens the prefix has, which is computed if that is asked for."""
        fields, key, frames = await self._asked(request)

        def work(session: Any) -> int:
            if fields.get("compute"):
                session.prepare()
            return int(session.prefix_tokens)

        tokens = await run_in_threadpool(self._engine.run_on, key, frames, work)
        return _json({"tokens": tokens})

    async def room(self, request: HttpRequest) -> Response:
        """How many tokens of an answer fit behind a question and the turns before it."""
        fields, key, frames = await self._asked(request)
        with _understood():
            asked = wire.read_request(fields["request"])
        tokens = await run_in_threadpool(
            self._engine.run_on, key, frames, lambda s: s.tokens_left(asked.question, asked.history)
        )
        return _json({"tokens": tokens})

    async def choice(self, request: HttpRequest) -> Response:
        """The tokens of a question, and those of a choice behind it."""
        fields, key, frames = await self._asked(request)
        with _understood():
            asked = wire.read_request(fields["request"])
            (choice,) = wire.texts([fields["choice"]])
            if not isinstance(asked, ScoreRequest):
                raise TypeError("a request with choices is expected")
        prompt, answer = await run_in_threadpool(
            self._engine.run_on, key, frames, lambda s: s.encode_choice(asked, choice)
        )
        return _json({"prompt": prompt, "answer": answer})

    async def answers(self, request: HttpRequest) -> Response:
        """Answer or score requests about a clip: server-sent events, each with a number."""
        fields, key, frames = await self._asked(request)
        with _understood():
            requests = [wire.read_request(each) for each in fields["requests"]]
            if not 0 < len(requests) <= _MOST_AT_ONCE:
                raise ValueError("too many requests, or none")
        answers = _Answers(self._service.count)
        queued = [(each, partial(answers.deliver, n)) for n, each in enumerate(requests)]
        with ExitStack() as stack:
            stack.enter_context(self._engine.place())
            answers.tickets = self._engine.submit_all(key, frames, queued)
            stack.callback(answers.cancel)
            events = answers.events(stream=bool(fields.get("stream")))
            return EventStream(events, stack.pop_all().close)

    async def windows(self, request: HttpRequest) -> Response:
        """Answer or score questions about each of many clips, which are sent as frames."""
        fields, clips = await self._unpacked(request)
        with _understood():
            number, system = _prompt(fields)
            questions = wire.texts(fields["questions"])
            choices = wire.texts(fields["choices"]) if "choices" in fields else None
            options = None if choices else wire.read_options(wire.sub_fields(fields, "options"))

        def look(group: "Sequence[Frames]", panda: "Panda") -> list[list[Fields]]:
            batch = panda.look_together(group, number, system)
            rows: Sequence[Sequence[Result]]
            rows = batch.score_all(questions, choices) if choices else batch.ask(questions, options)
            return [[wire.result_fields(result) for result in row] for row in rows]

        found: list[list[Fields]] = []
        with self._engine.place():
            while left := clips[len(found) :]:
                # other requests wait for all that are looked at together
                group = left[:1] if self._engine.requests > 1 else left
                work = partial(look, group)
                found += await until_gone(request, run_in_threadpool(self._engine.run, work))
        return _json({"results": found})

    async def _asked(self, request: HttpRequest) -> "tuple[Fields, ClipKey, Frames]":
        """The fields of a request, and the clip that it is about."""
        fields = await self._service.json(request)
        with _understood():
            if not isinstance(fields, dict):
                raise TypeError("an object is expected")
            clip = wire.sub_fields(fields, "clip")
            number, system = _prompt(clip)
            if "id" in clip:
                key = _sent_key(wire.texts([clip["id"]])[0], number, system)
        if "id" not in clip:
            return fields, *await self._read(request, clip, number, system)
        frames = self._service.known_frames(key)
        if frames is None:
            raise RequestError("these frames are not here", status=404)
        return fields, key, frames

    async def _read(
        self, request: HttpRequest, clip: Fields, number: int, system: str | None
    ) -> "tuple[ClipKey, Frames]":
        is_local = is_from_socket(request.scope)
        with _understood():
            times = clip["from"], clip["to"]
            if not all(time is None or isinstance(time, int | float) for time in times):
                raise TypeError("times are numbers")
            if "file_id" in clip:
                source = VideoSource(file_id=wire.texts([clip["file_id"]])[0])
                path = await run_in_threadpool(self._service.find, source)
            elif is_local:
                path = Path(*wire.texts([clip["path"]]))
            else:
                raise ValueError("over TCP a file is uploaded first")
            asked = Clip(path, *times, at=tuple(map(float, clip["at"])))
        try:
            key = ClipKey.of(asked, number, system)
        except (OSError, ValueError):  # reading the file says why it cannot be read
            key = ClipKey(asked, _SENT, number, system)
        try:
            with self._engine.place():
                reading = self._service.read(key, limited=not is_local)
                return key, await until_gone(request, reading)
        except PandaError as error:  # names of folders on this machine are not told
            if "file_id" in clip:
                error.message = error.message.replace(str(path), clip["file_id"])
            raise

    async def _unpacked(self, request: HttpRequest) -> "tuple[Fields, list[Frames]]":
        body = await self._service.body(request)
        with _understood():
            side = self._service.settings.image_size
            return await run_in_threadpool(wire.unpack, body, side)


class _Answers:
    """Results of requests, awaited on the event loop as the engine delivers them."""

    def __init__(self, count: Callable[[Result], None]) -> None:
        self.tickets: list[Ticket] = []
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._results: asyncio.Queue[tuple[int, Result]] = asyncio.Queue()

    def deliver(self, number: int, result: Result) -> None:
        """Take a result on the engine's thread."""
        with suppress(RuntimeError):  # the loop is closed: the server has stopped
            self._loop.call_soon_threadsafe(self._results.put_nowait, (number, result))

    def cancel(self) -> None:
        for ticket in self.tickets:
            ticket.cancel()

    async def events(self, *, stream: bool) -> AsyncIterator[Fields]:
        left = len(self.tickets)
        while left:
            number, result = await self._results.get()
            if isinstance(result, str) and not stream:
                continue
            fields = {"index": number, **wire.result_fields(result)}
            if not isinstance(result, str):
                left -= 1
                self._count(result)
            scoring = self.tickets[number].scoring
            if isinstance(result, Scores) and scoring is not None:
                fields["scoring"] = asdict(scoring)
            yield fields


def _answered(endpoint: _Endpoint) -> _Endpoint:
    """The endpoint with its errors as a command prints them, beside those of OpenAI."""

    async def answer(request: HttpRequest) -> Response:
        try:
            return await endpoint(request)
        except PandaError as error:
            status, body = error_object(error)
            headers = {"retry-after": "1"} if status == 429 else {}
            return _json(body | {"panda": wire.error_fields(error)}, status, headers)

    return answer


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(wire.to_json(value), status, headers, media_type="application/json")


@contextmanager
def _understood() -> Iterator[None]:
    """Raise a RequestError for what a `wire` function or a lookup in the block cannot read."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise RequestError("the request is not one of this version of panda") from error


def _prompt(fields: Fields) -> tuple[int, str | None]:
    """The number of frames and the system prompt of a clip."""
    number, system = fields["frames"], fields["system"]
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError("a number of frames is expected")
    check_frame_count(number)
    if number > 512:
        raise UsageError(f"{number} frames are more than can be looked at")
    return number, None if system is None else wire.texts([system])[0]


def _sent_key(digest: str, number: int, system: str | None) -> ClipKey:
    return ClipKey(Clip(Path(f"frames:{digest}")), _SENT, number, system)


def _facts(panda: "Panda") -> Fields:
    return {
        "name": panda.name,
        "quant": panda.quant,
        "engine": panda.engine,
        "devices": panda.devices,
        "dtype": panda.dtype,
        "context": panda.context,
        "image_size": panda.image_size,
        "memory_hint": panda.memory_hint,
    }


def _memory(panda: "Panda") -> Fields:
    return {"peak": panda.peak_memory, "windows_at_once": panda.windows_at_once}
