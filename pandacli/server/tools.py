"""The tools that `panda mcp` offers to another model: questions, pictures, searches.

What a model reads of a result are its texts and pictures; programs read the structured content.
"""

import asyncio
import base64
import io
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import count
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from mcp import types

from pandacli.errors import PandaError, UsageError
from pandacli.inference.spec import Answer, Request, ScoreRequest, Scores, check_choices
from pandacli.server.app import Service
from pandacli.server.protocol import ClipRequest, Fields, RequestError, VideoSource
from pandacli.server.search import Searches, parse_search
from pandacli.server.streaming import Answering
from pandacli.server.tool_schemas import about, describe_tools
from pandacli.video.clip import format_time, format_times
from pandacli.video.windows import span_of

if TYPE_CHECKING:
    from pandacli.video import Frames

Result = types.CallToolResult
Report = Callable[[float, float | None, str], Awaitable[None]]
"""Sends a notification of progress: done, of how many, and what is being done."""
_Call = Callable[[Fields, Report], Coroutine[None, None, Result]]

_QUALITY = 85  # of JPEG
_MOST_NAMES = 8  # of videos in an error
_LOW_COVERAGE = 0.01  # of choices, below which none of them fits


class Tools:
    """The tools, in front of a service that is running."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self._service, self._engine, self._model = service, service.engine, settings.model
        folders = ", ".join(map(str, service.folders.folders))
        self._places = text_content(folders).text
        self._loading = f"loading {self._model}"
        timeout = settings.limits.read_seconds or None
        self._searches = Searches(service.engine, settings.image_size, timeout)
        self._calls: dict[str, _Call] = {
            "ask_video": self._ask_video,
            "look_at_frames": self._look_at_frames,
            "find_moment": self._find_moment,
        }
        self.described = describe_tools(self._model, self._places)
        self._arguments = {tool.name: tool.input_schema["properties"] for tool in self.described}

    def say(self, words: str) -> None:
        """Note what loading the model is at, for those who wait for it; on any thread."""
        self._loading = words

    @property
    def instructions(self) -> str:
        """What a client may tell its model about this server."""
        return (
            f"Looks at video files on this machine with {about(self._model)}. ask_video answers a "
            "question about a video or a part of it, find_moment searches a film for the times at "
            "which something is to be seen, look_at_frames shows pictures. "
            f"The files are in these folders and below: {self._places}."
        )

    async def call(self, name: str, arguments: Mapping[str, Any], report: Report) -> Result:
        """Call a tool; a PandaError if there is none, or if it cannot do what is asked."""
        if name not in self._calls:
            what = f"there is no tool {name[:80]!r}"
            raise UsageError(what, f"the tools are {', '.join(self._calls)}")
        known = self._arguments[name]
        try:
            if unknown := next((each for each in arguments if each not in known), None):
                what = f"{name} has no argument {unknown[:80]!r}"
                raise UsageError(what, f"its arguments are {', '.join(known)}")
            with self._engine.place():
                call, fields = self._calls[name], Fields(arguments)
                return await self._with_signs_of_life(call, fields, report)
        except PandaError as error:
            if isinstance(error, RequestError) and error.code == "file_not_allowed":
                error.hint = await asyncio.to_thread(self._other_videos, arguments["path"])
            if error.hint:  # hints name options of the command line
                error.hint = re.sub(rf"--({'|'.join(known)})\b", r"\1", error.hint)
            raise

    async def _ask_video(self, fields: Fields, _: Report) -> Result:
        clip, question = _clip(fields), _question(fields)
        history, choices = _history(fields), fields.take("choices", list)
        asked: Request | ScoreRequest = Request(question, history)
        if choices is not None:
            if not all(isinstance(choice, str) for choice in choices):
                raise UsageError("choices must be a list of strings")
            asked = ScoreRequest(question, check_choices(choices), history)
        key, frames = await self._service.look(clip)
        answering = Answering(stream=False)
        answering.ticket = self._engine.submit(key, frames, asked, answering.deliver)
        try:
            return self._answer(await answering.last(), frames)
        finally:
            answering.cancel()

    def _answer(self, result: Answer | Scores, frames: "Frames") -> Result:
        first, *_, last = format_times([frames.times[0], *frames.times])
        number = len(frames.times)
        seen = f"{number} frames, from {first} to {last}" if number > 1 else f"a frame, at {first}"
        notices = (f" {notice}." for notice in frames.notices)
        note = "".join([f"{self._model} looked at {seen}.", *notices])
        record: dict[str, Any] = {"model": self._model}
        record["frame_times"] = [round(float(time), 6) for time in frames.times]
        if isinstance(result, Answer):
            if result.finish_reason == "length":
                note = f"The answer was cut off. {note}"
            return _result([result.text, f"({note})"], {"answer": result.text} | record)
        ranked = sorted(result.choices, key=lambda choice: -choice.logprob)
        lines = [f"{choice.probability:.2f}  {choice.text}" for choice in ranked]
        if result.coverage < _LOW_COVERAGE:
            note = f"None of the choices is what it would say by itself. {note}"
        choices = [{"text": c.text, "probability": round(c.probability, 6)} for c in ranked]
        record |= {"choices": choices, "coverage": round(result.coverage, 6)}
        return _result(["\n".join(lines), f"({note})"], {"answer": ranked[0].text} | record)

    async def _look_at_frames(self, fields: Fields, _: Report) -> Result:
        clip = _clip(fields)
        frames = (await self._service.look(clip))[1]
        pictures = await asyncio.to_thread(lambda: [*map(_picture, frames.pixels)])
        info = frames.info
        shape = f"{info.width}x{info.height} pixels, {info.fps:.4g} frames per second"
        length = f"{format_time(info.duration)} long, {info.frame_count} frames"
        times = zip(frames.indices, format_times(frames.times), strict=True)
        lines = [
            f"{_printable(PurePath(clip.video.address).name)}: {length}, {shape}, {info.codec}.",
            *(f"{notice}." for notice in frames.notices),
            f"{len(pictures)} of the frames, as {self._model} sees them:",
            *(f"{n}. frame {index}, at {time}" for n, (index, time) in enumerate(times, 1)),
        ]
        return _result(["\n".join(lines)], pictures=pictures)

    async def _find_moment(self, fields: Fields, report: Report) -> Result:
        shown = _path(fields)
        body = {name: fields.take_any(name) for name in ("from", "to", "window", "threshold")}
        question = _question(fields)
        asked = parse_search({"video": {"url": shown}, "question": question} | body)
        key, frames = await self._service.look(asked)  # within the limits, or an error
        span = span_of(key.clip, frames.info.duration)
        search = self._searches.begin(key.clip.path, span, asked, shown)
        windows: list[dict[str, Any]] = []
        found: dict[str, Any] = {}
        try:
            async for event in search.events(await search.first()):
                if "error" in event:
                    raise PandaError(event["error"]["message"])
                windows += event.get("windows", ())
                if done := event.get("done"):
                    await report(done, event["total"], f"{done} of {event['total']} windows")
                found = event
        finally:
            search.cancel()
        record = {
            "question": asked.question,
            "segments": found["segments"],
            "from": round(span.start, 6),
            "to": round(span.end, 6),
            "windows": len(windows),
            "notices": [*found["notices"], *_failures(windows)],
            "model": self._model,
        }
        scored = [window for window in windows if window["probability"] is not None]
        if scored:
            record["highest"] = max(scored, key=lambda window: window["probability"])
        return _result(["\n".join(_moment_lines(record))], record)

    async def _with_signs_of_life(self, call: _Call, fields: Fields, report: Report) -> Result:
        """Await a call; until it reports progress itself, say every second what is waited for.

        The numbers of reports have to increase: those of the seconds stay below 1.
        """
        latest = 0.0

        async def own(done: float, total: float | None, doing: str) -> None:
            nonlocal latest
            if done > latest:
                latest = done
                await report(done, total, doing)

        task = asyncio.ensure_future(call(fields, own))
        try:
            for seconds in count(1):
                if (await asyncio.wait({task}, timeout=1))[0]:
                    break
                if not latest:
                    looking = f"{self._model} is looking"
                    doing = looking if self._engine.panda else self._loading
                    await report(seconds / (seconds + 1), None, doing)
            return task.result()
        finally:
            task.cancel()

    def _other_videos(self, wanted: str) -> str | None:
        """A hint that names videos which can be read, those with similar names first."""
        names = [*map(_printable, self._service.folders.names())]
        near = get_close_matches(PurePath(wanted).name, names, _MOST_NAMES)
        chosen = [*dict.fromkeys([*near, *names])][:_MOST_NAMES]
        more = f" and {len(names) - len(chosen)} more" if len(names) > len(chosen) else ""
        listed = f"videos there: {', '.join(chosen)}{more}" if chosen else "there is no video there"
        return f"{listed} (in {self._places})"


def text_content(text: str) -> types.TextContent:
    """A text of a result; bytes of file names that are no text are escaped."""
    return types.TextContent(text=text.encode("utf-8", "backslashreplace").decode())


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _clip(fields: Fields) -> ClipRequest:
    video = VideoSource(address=_path(fields))
    return ClipRequest(video, *fields.take_times(), None)


def _path(fields: Fields) -> str:
    path: str | None = fields.take("path", str)
    if not path:
        raise UsageError("path is missing", "give the path of a video file")
    return path


def _question(fields: Fields) -> str:
    question = (fields.take("question", str) or "").strip()
    if not question:
        raise UsageError("question is missing", "ask something about the video")
    return question


def _history(fields: Fields) -> list[tuple[str, str]]:
    turns = []
    for turn in fields.take("history", list) or ():
        match turn:
            case {"question": str(question), "answer": str(answer)}:
                turns.append((question, answer))
            case _:
                raise UsageError("history must be a list of objects with a question and an answer")
    return turns


def _picture(pixels: Any) -> str:
    """A frame as base64 of a JPEG."""
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=_QUALITY)
    return base64.b64encode(written.getvalue()).decode()


def _moment_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """What a search found, with a line for each segment."""
    segments, model, question = record["segments"], record["model"], record["question"]
    times = _span({"start": record["from"], "end": record["to"]})
    if segments:
        yield f'{model} answers "{question}" with yes at these times of {times}:'
    elif highest := record.get("highest"):
        yield f'{model} does not answer "{question}" with yes in {times}.'
        yield f"Its probability is {highest['probability']:.2f} at most, at {_span(highest)}."
    for segment in segments:
        yield f"{_span(segment)}  probability {segment['probability']:.2f}"
    yield from (f"({notice}.)" for notice in record["notices"])


def _span(part: Mapping[str, float]) -> str:
    return " - ".join(format_times([round(part[end], 1) for end in ("start", "end")]))


def _failures(windows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    failed = [window["error"] for window in windows if "error" in window]
    if failed:
        yield f"{len(failed)} of the windows could not be looked at: {failed[0]}"


def _result(
    texts: Sequence[str], record: Mapping[str, Any] | None = None, pictures: Sequence[str] = ()
) -> Result:
    content: list[types.ContentBlock] = [*map(text_content, texts)]
    content += [types.ImageContent(data=data, mime_type="image/jpeg") for data in pictures]
    return Result(content=content, structured_content=record)
