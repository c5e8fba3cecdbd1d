"""OpenAI's chat completions: what a request asks for, and what is wrong with it.

A request that is not understood in full is refused: no parameter is left unused. Those of OpenAI
that change no answer (`user`, `metadata`, ...) are accepted. Written to
https://platform.openai.com/docs/api-reference/chat.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pandacli.errors import ClipError, DeviceError, ModelError, PandaError, UsageError
from pandacli.inference.spec import (
    GenerationOptions,
    Request,
    ScoreRequest,
    check_choices,
    check_frame_count,
)
from pandacli.server.engine import BusyError, StoppedError
from pandacli.video.clip import Clip, parse_time

DEFAULT_TOKENS = 1024
MOST_FRAMES = 64  # of a request: more have no room in the model, and take much memory to read
MOST_TEXT = 200_000  # characters of a request: more have no room in the model, and block it
_MOST_VALUES = 500_000  # of a JSON body: more take long to parse, and much memory
_MOST_MESSAGES = 1000
_MOST_STOPS = 4
_MOST_CHOICES = 100
_OPTION = re.compile(r"--([a-z]+)\b")
_SHOWN = 80  # characters of a name or value that an error repeats
_WITHOUT_EFFECT = {  # on an answer
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    *("prompt_cache_retention", "verbosity", "parallel_tool_calls"),
}
_ONLY: dict[str, tuple[Any, ...]] = {  # parameters of which one value is supported
    "n": (1,),
    "top_p": (1,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
}


class RequestError(UsageError):
    """A request that cannot be answered, with the HTTP status and OpenAI's name for why."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        status: int = 400,
        code: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.param, self.status, self.code, self.kind = param, status, code, kind


@dataclass(frozen=True)
class VideoSource:
    """Where the video of a request is: one of the three."""

    address: str = ""  # a file: address, or a path
    data: str = ""  # base64, or a data: address
    file_id: str = ""


@dataclass(frozen=True)
class ClipRequest:
    """The frames that are asked for, or about."""

    video: VideoSource
    times: tuple[float | None, float | None]  # the range in seconds; None is an end of the video
    at: tuple[float, ...]
    num_frames: int
    system: str | None

    def clip(self, path: Any) -> Clip:
        """The clip in a file; a UsageError if its times are not valid."""
        return Clip(path, *self.times, at=self.at)


@dataclass(frozen=True)
class ChatRequest(ClipRequest):
    """A chat completion that is asked for."""

    model: str
    asked: Request | ScoreRequest
    options: GenerationOptions
    stream: bool
    include_usage: bool


def parse_json(body: bytes) -> object:
    """The JSON of a request; a RequestError if it is none."""
    if sum(map(body.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise RequestError("the body has too many values", status=413, code="body_too_large")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError("the body is not JSON") from error


def parse_chat(body: object) -> ChatRequest:
    """Parse the JSON of a chat completion request; a RequestError if anything is not understood."""
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    fields = Fields(body)
    model = fields.take("model", str)
    if model is None:
        raise RequestError("model is missing", param="model")
    messages = fields.take("messages", list)
    if not messages:
        raise RequestError("messages is missing or empty", param="messages")
    if len(messages) > _MOST_MESSAGES:
        raise RequestError(f"messages may have {_MOST_MESSAGES}", param="messages")
    stream = bool(fields.take("stream", bool))
    include_usage = _include_usage(fields, stream)
    options = _options(fields)
    choices = fields.take("choices", list)
    times, at, num_frames = fields.take_times()
    fields.refuse_the_rest()
    system, turns, video = _conversation(messages)
    *history, (question, _) = turns
    earlier = [(asked, answer or "") for asked, answer in history]
    asked: Request | ScoreRequest = Request(question, earlier, options)
    if choices is not None:
        if options.logprobs or stream:
            what = "logprobs" if options.logprobs else "stream"
            raise RequestError(f"{what} and choices cannot be combined", param=what)
        if len(choices) > _MOST_CHOICES:
            raise RequestError(f"choices may have {_MOST_CHOICES} strings", param="choices")
        if not all(isinstance(choice, str) for choice in choices):
            raise RequestError("choices is a list of strings", param="choices")
        _check_text("choices", choices)
        try:
            asked = ScoreRequest(question, check_choices(choices), earlier)
        except UsageError as error:
            raise RequestError(_sentence(error), param="choices") from error
    return ChatRequest(
        video, times, at, num_frames, system, model, asked, options, stream, include_usage
    )


class Fields:
    """The fields of a JSON object, each of which is taken once."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._left = {name: value for name, value in body.items() if value is not None}

    def take(self, name: str, kind: type) -> Any:
        value = self._left.pop(name, None)
        is_number = kind in (int, float) and isinstance(value, bool)
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if value is not None and (is_number or not fits):
            what = {str: "a string", bool: "true or false", list: "a list", dict: "an object"}
            what |= {int: "a whole number", float: "a number"}
            raise RequestError(f"{name} must be {what[kind]}", param=name)
        return value

    def take_any(self, name: str) -> Any:
        return self._left.pop(name, None)

    def take_video(self) -> VideoSource:
        value = self.take("video", dict)
        if value is None:
            raise RequestError("video is missing", param="video", code="invalid_video")
        return _source(value, "video")

    def take_times(self) -> tuple[tuple[float | None, float | None], tuple[float, ...], int]:
        """The range, the single times, and the number of frames."""
        times = _time(self, "from"), _time(self, "to")
        given = self.take("at", list) or ()
        num_frames = self.take("frames", int)
        num_frames = 8 if num_frames is None else num_frames
        if num_frames > MOST_FRAMES:
            raise RequestError(f"frames may be up to {MOST_FRAMES}", param="frames")
        try:
            check_frame_count(num_frames)
        except UsageError as error:
            raise RequestError(_sentence(error), param="frames") from error
        if len(given) > num_frames:
            raise RequestError(f"at may have {num_frames} times, one a frame", param="at")
        at = tuple(_seconds(moment, "at") for moment in given)
        try:
            Clip(Path(), *times, at=at)
        except UsageError as error:
            raise RequestError(error.message, param="at" if at else "to") from error
        return times, at, num_frames

    def refuse_the_rest(self) -> None:
        for name, value in self._left.items():
            only = _ONLY.get(name, ())
            if name in _WITHOUT_EFFECT or any(_is_same(value, each) for each in only):
                continue
            if only:
                raise RequestError(f"{name} is not supported", param=name)
            raise RequestError(f"unknown parameter: {name[:_SHOWN]}", param=name[:_SHOWN])


def _is_same(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _include_usage(fields: Fields, stream: bool) -> bool:
    options = fields.take("stream_options", dict)
    if options is None:
        return False
    if not stream:
        raise RequestError("stream_options needs stream", param="stream_options")
    include = options.get("include_usage") or False
    if not isinstance(include, bool):
        what = "stream_options.include_usage must be true or false"
        raise RequestError(what, param="stream_options")
    return include


def _options(fields: Fields) -> GenerationOptions:
    # the older name of a limit first
    tokens = {name: fields.take(name, int) for name in ("max_tokens", "max_completion_tokens")}
    stop = fields.take_any("stop")
    stops = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not (isinstance(stops, list) and all(isinstance(each, str) and each for each in stops)):
        raise RequestError("stop is a string, or a list of strings", param="stop")
    if len(stops) > _MOST_STOPS:
        raise RequestError(f"stop may have {_MOST_STOPS} strings", param="stop")
    _check_text("stop", stops)
    options = GenerationOptions(
        max_tokens=DEFAULT_TOKENS, stop=tuple(stops), logprobs=bool(fields.take("logprobs", bool))
    )
    given = {**tokens, "temperature": fields.take("temperature", float)}
    given["seed"] = fields.take("seed", int)
    for name, value in given.items():
        if value is None:
            continue
        try:
            field = "max_tokens" if name in tokens else name
            options = replace(options, **{field: value})
            options.check()
        except UsageError as error:
            raise RequestError(f"{name}: {_sentence(error)[:_SHOWN]}", param=name) from error
    return replace(options, temperature=float(options.temperature))


def _check_length(where: str, characters: int) -> None:
    if characters > MOST_TEXT:
        what = f"{where} is too long: a request may have {MOST_TEXT:,} characters of text"
        raise RequestError(what, param=where, code="context_length_exceeded")


def _check_text(where: str, texts: Collection[str]) -> None:
    """Refuse text that has no room in any model, or is not Unicode."""
    _check_length(where, sum(map(len, texts)))
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            what = f"{where} has half of a surrogate pair, which is no character"
            raise RequestError(what, param=where) from error


def _time(fields: Fields, name: str) -> float | None:
    value = fields.take_any(name)
    return None if value is None else _seconds(value, name)


def _seconds(value: object, name: str) -> float:
    if isinstance(value, str):
        try:
            return parse_time(value)
        except UsageError as error:
            raise RequestError(_sentence(error), param=name) from error
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e9:
        return float(value)
    raise RequestError(f'{name} is a time in seconds, or a string as "1:02.5"', param=name)


def _conversation(
    messages: Sequence[object],
) -> tuple[str | None, list[tuple[str, str | None]], VideoSource]:
    """The system prompt, the turns (the last without an answer), and the video of messages."""
    system: list[str] = []
    turns: list[tuple[str, str | None]] = []
    videos: dict[VideoSource, None] = {}
    length = 0
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            raise RequestError(f"{where} must be an object", param=where)
        role = message.get("role")
        text, sources = _content(message.get("content"), where)
        videos |= dict.fromkeys(sources)
        _check_text(where, [text])
        length += len(text)
        _check_length("messages", length)
        if role in ("system", "developer") and not turns:
            system.append(text)
        elif role == "user":
            if turns and turns[-1][1] is None:  # several in a row are one question
                text = "\n".join(filter(None, (turns.pop()[0], text)))
            turns.append((text, None))
        elif role == "assistant" and turns and turns[-1][1] is None:
            turns[-1] = turns[-1][0], text
        else:
            named = f"role {role[:_SHOWN]!r}" if isinstance(role, str) else "no role"
            raise RequestError(f"{where}: a message of {named} cannot stand here", param=where)
    if not turns or turns[-1][1] is not None:
        raise RequestError("the last message must be of role user", param="messages")
    if not all(question for question, _ in turns):
        raise RequestError("a question is empty", param="messages")
    if len(videos) != 1:
        many = "several videos" if videos else "no video"
        what = f"the messages have {many}; one is needed, as a part of type video_url, input_video"
        raise RequestError(f"{what} or file", param="messages", code="invalid_video")
    return "\n".join(system) if system else None, turns, next(iter(videos))


def _content(content: object, where: str) -> tuple[str, list[VideoSource]]:
    if isinstance(content, str):
        return content.strip(), []
    if not isinstance(content, list):
        raise RequestError(f"{where}.content must be a string or a list of parts", param=where)
    texts, videos = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get(kind) if isinstance(part, dict) and isinstance(kind, str) else None
        if kind == "text" and isinstance(value, str):
            texts.append(value)
        elif kind in ("video_url", "input_video", "file") and isinstance(value, dict):
            videos.append(_source(value, where))
        else:
            supported = "text, video_url, input_video and file"
            raise RequestError(f"{where}: the types of parts are {supported}", param=where)
    return " ".join(texts).strip(), videos


def _source(value: Mapping[str, Any], where: str) -> VideoSource:
    address, file_id = value.get("url"), value.get("file_id")
    data = value.get("data") or value.get("file_data")  # the latter in parts of type file
    if isinstance(file_id, str) and file_id:
        return VideoSource(file_id=file_id)
    if isinstance(data, str) and data:
        return VideoSource(data=data)
    if isinstance(address, str) and address:
        is_data = address[:5].lower() == "data:"
        return VideoSource(data=address) if is_data else VideoSource(address=address)
    what = f"{where}: a video has a url (data: or file:), base64 data, or a file_id"
    raise RequestError(what, param=where, code="invalid_video")


def error_object(error: PandaError) -> tuple[int, dict[str, Any]]:
    """The HTTP status of an error, and its object."""
    status, kind, code, param = 500, "server_error", None, None
    match error:
        case RequestError():
            status, kind, code, param = error.status, error.kind, error.code, error.param
        case BusyError():
            status, kind, code = 429, "rate_limit_error", "rate_limit_exceeded"
        case UsageError():
            status, kind = 400, "invalid_request_error"
        case ClipError():
            status, kind, code = 400, "invalid_request_error", "invalid_video"
        case ModelError():
            status, code = 503, "model_unavailable"
        case DeviceError():
            status, code = 503, "out_of_memory"
        case StoppedError():
            status, code = 503, "server_stopping"
    # halves of surrogate pairs, as in the name of an unknown parameter, cannot be sent
    message, param = (
        text and text.encode("utf-8", "backslashreplace").decode()
        for text in (_sentence(error), param)
    )
    body = {"message": message, "type": kind, "param": param, "code": code}
    return status, {"error": body}


def _sentence(error: PandaError) -> str:
    if not error.hint:
        return error.message
    # a hint names options of the command line: those of requests have the same names
    hint = _OPTION.sub(r"\1", error.hint)
    return f"{error.message}; {hint}"
