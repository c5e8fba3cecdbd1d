"""Entries with messages: training conversations, of which the first turn is asked, and requests.

Conversations: LLaVA and ShareGPT (`conversations` of {"from": "human", "value"}), LLaMA-Factory
(either of the two lists with `videos` beside it), and the `messages` of Qwen with parts of the
type "video". Requests are those of OpenAI's Batch API
(https://platform.openai.com/docs/api-reference/batch/request-input), with the video as a part
{"type": "video_url", "video_url": {"url": ...}} as in vLLM.
"""

import re
from collections.abc import Iterator
from itertools import dropwhile, islice
from typing import Any, NamedTuple

from pandacli.batch.readers.entries import kind
from pandacli.batch.readers.fields import (
    VIDEO,
    build_records,
    max_tokens,
    member,
    near_field,
    path_in,
)
from pandacli.batch.records import Record, RecordError
from pandacli.errors import ClipError
from pandacli.video.clip import local_file

_ENDPOINT = "/v1/chat/completions"
_LISTS = ("conversations", "messages")
_ROLES = {
    **{"human": "user", "user": "user", "system": "system", "developer": "system"},
    **dict.fromkeys(("assistant", "gpt", "model", "bot"), "assistant"),
}
_VIDEO_TAG = re.compile(r"[ \t]*\n?<(?:video|image)>\n?[ \t]*")  # LLaVA-Video writes <image> too
_MAX_SHOWN = 80


class _Message(NamedTuple):
    role: str
    text: str
    videos: list[str]


def is_request(fields: dict[str, Any]) -> bool:
    """Whether an entry looks like a request of the Batch API."""
    return "body" in fields and ("custom_id" in fields or "url" in fields)


def is_conversation(fields: dict[str, Any]) -> bool:
    """Whether an entry is a conversation, and not a question beside one."""
    return "question" not in fields and any(isinstance(fields.get(n), list) for n in _LISTS)


def read_request(fields: dict[str, Any], line: int) -> list[Record]:
    """The question of a request; its `temperature`, `top_p`, `seed` and `stop` are not used."""
    endpoint = fields.get("url", _ENDPOINT)
    if not isinstance(endpoint, str) or not endpoint.endswith(_ENDPOINT):
        raise RecordError(f"the field 'url' is not {_ENDPOINT}")
    if isinstance(fields.get("custom_id"), list | dict):
        raise RecordError(f"the field 'custom_id' is {kind(fields['custom_id'])}, not a string")
    body = member(fields, "body", dict)
    if body.get("n") not in (None, 1):
        raise RecordError("the request wants several answers ('n'); there is one to a question")
    texts: dict[str, list[str]] = {"user": [], "system": []}
    videos: list[str] = []
    for message in _messages(member(body, "messages", list)):
        if message.role == "assistant":
            raise RecordError("the messages have an earlier answer; a record is one question")
        texts[message.role].append(message.text)
        videos += message.videos
    video = _only_video(videos, "messages")
    question, system = ("\n".join(filter(None, texts[role])) for role in ("user", "system"))
    limit = max_tokens(body, "max_completion_tokens") or max_tokens(body, "max_tokens")
    return build_records(fields, line, video, {"messages": question}, system, limit)


def read_conversation(fields: dict[str, Any], line: int) -> list[Record]:
    """The question of the first turn; later turns depend on answers, and are not asked."""
    where = _list_in(fields)
    messages = list(_messages(fields[where]))
    question = next((message.text for message in messages if message.role == "user"), None)
    if question is None:
        raise RecordError(f"the {where} have no turn of a user")
    beside = next((n for n in VIDEO if isinstance(fields.get(n), str | list | dict)), "video")
    videos = fields.get("videos") or fields.get(beside) or []
    videos = [path_in(each) for each in (videos if isinstance(videos, list) else [videos])]
    if None in videos:
        raise RecordError("the videos beside the messages are not a list of files")
    videos += [video for message in messages for video in message.videos]
    if not videos:
        near = near_field({name: value for name, value in fields.items() if name != where}, "video")
        raise RecordError(f"the {where} have no video, and the field 'video' is missing{near}")
    video = _only_video(list(dict.fromkeys(videos)), where)
    questions = {where: _VIDEO_TAG.sub("\n", question).strip()}
    system = [fields.get("system"), *(m.text for m in messages if m.role == "system")][-1]
    system = system if isinstance(system, str) else ""
    return build_records(fields, line, video, questions, system, max_tokens(fields, "max_tokens"))


def reference_answer(fields: dict[str, Any]) -> str | None:
    """The answer to the first question of a conversation; None where there is none."""
    turns = [message for message in _readable(fields) if message.role != "system"]
    rest = dropwhile(lambda turn: turn.role != "user", turns)
    return next((turn.text for turn in islice(rest, 1, 2) if turn.role == "assistant"), None)


def count_turns(fields: dict[str, Any]) -> int:
    """The number of questions in a conversation; 0 where it cannot be read."""
    return sum(message.role == "user" for message in _readable(fields))


def _list_in(fields: dict[str, Any]) -> str:
    return next(name for name in _LISTS if isinstance(fields.get(name), list))


def _readable(fields: dict[str, Any]) -> list[_Message]:
    try:
        return list(_messages(fields[_list_in(fields)]))
    except RecordError:
        return []


def _messages(entries: list[Any]) -> Iterator[_Message]:
    for entry in entries:
        if not isinstance(entry, dict):
            raise RecordError(f"a message is {kind(entry)}, not an object")
        written = str(entry.get("role", entry.get("from")))
        if written not in _ROLES:
            shown = repr(written[:_MAX_SHOWN])
            raise RecordError(f"a message has the role {shown}, not user or system")
        content = entry["value"] if "value" in entry else member(entry, "content", object)
        yield _Message(_ROLES[written], *_content(content))


def _content(content: Any) -> tuple[str, list[str]]:
    """The text of a message, and the videos in it."""
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list):
        raise RecordError(f"a message has {kind(content)} for its content")
    texts, videos = [], []
    for part in content:
        if not isinstance(part, dict):
            raise RecordError(f"a part of a message is {kind(part)}, not an object")
        which = part.get("type", next(iter(part), ""))
        if which == "text":
            texts.append(member(part, "text", str))
        elif which in ("video", "video_url"):
            value = part.get(which)
            value = value.get("url") if isinstance(value, dict) else value
            if not isinstance(value, str):
                raise RecordError("a video in the messages is not a file")
            videos.append(value)
        else:
            raise RecordError(f"a message has a part of the type {str(which)[:_MAX_SHOWN]!r}")
    return "\n".join(texts), videos


def _only_video(videos: list[str], where: str) -> str:
    """The one video, from a path or a `file://` address."""
    if len(videos) != 1:
        raise RecordError(f"the {where} have {len(videos) or 'no'} videos, not one")
    [video] = videos
    try:
        path = local_file(video) if ":" in video else video
    except ClipError as error:
        raise RecordError(error.message, error.hint) from None
    return str(path) if video[:5].lower() == "file:" else video
