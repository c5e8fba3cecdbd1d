"""Conversations about a video, as models are trained on: what their first turn asks.

The layouts: LLaVA and ShareGPT (`conversations` of {"from": "human", "value"}), LLaMA-Factory
(either of the two lists with `videos` beside it), and the `messages` of Qwen with parts of the
type "video".

Requests in the shape of OpenAI's Batch API: what they ask, as a record.

The shape: https://platform.openai.com/docs/api-reference/batch/request-input; the part with the
video is that of vLLM, `{"type": "video_url", "video_url": {"url": ...}}`.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from pandacli.batch.readers.fields import (
    VIDEO,
    max_tokens,
    nearest,
    path_in,
    question_text,
    time_range,
    video_name,
    whole_text,
)
from pandacli.batch.readers.json_parsing import kind
from pandacli.batch.records import Record, RecordError
from pandacli.errors import ClipError
from pandacli.video.clip import local_file

_ENDPOINT = "/v1/chat/completions"
_REQUEST_SHOWN = 80


def is_request(fields: dict[str, Any]) -> bool:
    """Whether an entry looks like a request of the Batch API."""
    return "body" in fields and ("custom_id" in fields or "url" in fields)


def record_of(fields: dict[str, Any], line: int) -> Record:
    """The question of a request.

    How an answer is drawn is a matter of the run: `temperature`, `top_p`, `seed` and `stop` of a
    request are not used.

    Args:
        fields: The request.
        line: Where it stands.

    Raises:
        RecordError: It is no request that can be answered here: it has an earlier answer in it,
            several videos, a video that is not on this machine, or another endpoint.
    """
    endpoint = fields.get("url", _ENDPOINT)
    if not isinstance(endpoint, str) or not endpoint.endswith(_ENDPOINT):
        raise RecordError(f"the field 'url' is not {_ENDPOINT}")
    if isinstance(fields.get("custom_id"), list | dict):
        raise RecordError(f"the field 'custom_id' is {kind(fields['custom_id'])}, not a string")
    body = _member(fields, "body", dict)
    if body.get("n") not in (None, 1):
        raise RecordError("the request wants several answers ('n'); there is one to a question")
    said = _Said()
    for message in _member(body, "messages", list):
        said.hear(message)
    if len(said.videos) != 1:
        raise RecordError(f"the messages have {len(said.videos) or 'no'} videos, not one")
    question = question_text("\n".join(said.questions), "messages")
    system = whole_text("\n".join(said.system), "messages") or None
    limits = "max_completion_tokens", "max_tokens"
    limit = next((name for name in limits if body.get(name) is not None), limits[0])
    start, end = time_range(fields)
    return Record(
        line,
        fields,
        video_name(local_path(said.videos[0])),
        question,
        start,
        end,
        system,
        max_tokens(body, limit),
    )


@dataclass
class _Said:
    """What the messages of a request say, sorted."""

    system: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)

    def hear(self, message: Any) -> None:
        if not isinstance(message, dict):
            raise RecordError(f"a message is {kind(message)}, not an object")
        role = message.get("role")
        if role in ("system", "developer"):
            texts, videos = _request_parts(message)
            self.system += texts
        elif role == "user":
            texts, videos = _request_parts(message)
            self.questions += texts
        elif role == "assistant":
            raise RecordError("the messages have an earlier answer; a record is one question")
        else:
            raise RecordError(
                f"a message has the role {str(role)[:_REQUEST_SHOWN]!r}, not user or system"
            )
        self.videos += videos


def _request_parts(message: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The texts of a message, and the addresses of its videos."""
    content = message.get("content")
    if isinstance(content, str):
        return [content], []
    texts: list[str] = []
    videos: list[str] = []
    for part in _member(message, "content", list):
        if not isinstance(part, dict):
            raise RecordError(f"a part of a message is {kind(part)}, not an object")
        which = part.get("type")
        if which == "text":
            texts.append(_member(part, "text", str))
        elif which == "video_url":
            address = part.get("video_url")
            videos.append(
                _member(address if isinstance(address, dict) else {"url": address}, "url", str)
            )
        else:
            raise RecordError(f"a message has a part of the type {str(which)[:_REQUEST_SHOWN]!r}")
    return texts, videos


def local_path(address: str) -> str:
    """The path that an address of a video means.

    Raises:
        RecordError: It is not on this machine.
    """
    if ":" not in address:
        return address
    try:
        path = local_file(address)
    except ClipError as error:
        raise RecordError(error.message, error.hint) from None
    return str(path) if address[:5].lower() == "file:" else address


def _member(fields: dict[str, Any], name: str, wanted: type) -> Any:
    if name not in fields:
        raise RecordError(f"the field {name!r} is missing{nearest(name, fields)}")
    value = fields[name]
    if not isinstance(value, wanted):
        raise RecordError(f"the field {name!r} is {kind(value)}, not {kind(wanted())}")
    return value


_LISTS = ("conversations", "messages")
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
_PLACE = re.compile(r"[ \t]*\n?<(?:video|image)>\n?[ \t]*")  # LLaVA-Video writes <image> for both
_SHOWN = 80


def is_conversation(fields: dict[str, Any]) -> bool:
    """Whether an entry is a conversation, and not a question beside one."""
    return "question" not in fields and any(isinstance(fields.get(n), list) for n in _LISTS)


def first_turn(fields: dict[str, Any], line: int) -> Record:
    """The question of the first turn; later turns depend on answers, and are not asked.

    Args:
        fields: The entry.
        line: Where it stands.

    Raises:
        RecordError: There is no question in it, or not one video.
    """
    said = _heard(fields)
    if said.question is None:
        raise RecordError(f"the {_list_of(fields)} have no turn of a user")
    if len(said.videos) != 1:
        raise RecordError(f"the {_list_of(fields)} have {len(said.videos) or 'no'} videos, not one")
    question = question_text(_PLACE.sub("\n", said.question).strip(), _list_of(fields))
    system = said.system if isinstance(said.system, str) else None
    start, end = time_range(fields)
    return Record(
        line,
        fields,
        video_name(local_path(said.videos[0])),
        question,
        start,
        end,
        whole_text(system, "system") or None if system is not None else None,
        max_tokens(fields, "max_tokens"),
    )


def right_answer(fields: dict[str, Any]) -> str | None:
    """What the conversation says to the first question; None where it says nothing."""
    try:
        return _heard(fields).answer
    except RecordError:
        return None


def turns(fields: dict[str, Any]) -> int:
    """How many questions a conversation has."""
    try:
        return _heard(fields).turns
    except RecordError:
        return 0


@dataclass
class _Heard:
    """What a conversation says, as far as it is of use."""

    videos: list[str] = field(default_factory=list)
    system: Any = None
    question: str | None = None
    answer: str | None = None
    turns: int = 0


def _heard(fields: dict[str, Any]) -> _Heard:
    said = _Heard(_videos_beside(fields), fields.get("system"))
    for message in fields[_list_of(fields)]:
        if not isinstance(message, dict):
            raise RecordError(f"a message is {kind(message)}, not an object")
        written = message.get("role", message.get("from"))
        role = _ROLES.get(str(written), written)
        text, videos = _parts(message.get("content", message.get("value")))
        said.videos += [video for video in videos if video not in said.videos]
        if role == "system":
            said.system = text
        elif role == "user":
            said.turns += 1
            said.question = text if said.question is None else said.question
        elif role == "assistant":
            said.answer = text if said.turns == 1 and said.answer is None else said.answer
        else:
            raise RecordError(f"a message has the role {str(role)[:_SHOWN]!r}, not user or system")
    return said


def _list_of(fields: dict[str, Any]) -> str:
    return next(name for name in _LISTS if isinstance(fields.get(name), list))


def _videos_beside(fields: dict[str, Any]) -> list[str]:
    name = next((name for name in VIDEO if isinstance(fields.get(name), str | list | dict)), None)
    found = fields.get("videos") or fields.get(name or "video") or []
    paths = [path_in(each) for each in (found if isinstance(found, list) else [found])]
    videos = [path for path in paths if path is not None]
    if len(videos) < len(paths):
        raise RecordError("the videos beside the messages are not a list of files")
    return videos


def _parts(content: Any) -> tuple[str, list[str]]:
    """The text of a message, and the videos in it."""
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise RecordError(f"a message has {_article(content)} for its content")
    texts, videos = [], []
    for part in content:
        which = part.get("type", next(iter(part), ""))
        value = part.get(which)
        if which == "text" and isinstance(value, str):
            texts.append(value)
        elif which in ("video", "video_url"):
            value = value.get("url") if isinstance(value, dict) else value
            if not isinstance(value, str):
                raise RecordError("a video in the messages is not a file")
            videos.append(value)
        else:
            raise RecordError(f"a message has a part of the type {str(which)[:_SHOWN]!r}")
    return "\n".join(texts), videos


def _article(content: Any) -> str:
    return "a list of no parts" if isinstance(content, list) else kind(content)
