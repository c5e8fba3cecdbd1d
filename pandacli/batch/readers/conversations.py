"""Entries with messages: training conversations, of which the first turn is asked, and requests.

Conversations: LLaVA and ShareGPT (`conversations` of {"from": "human", "value"}), LLaMA-Factory
(either of the two lists with `videos` beside it), and the `messages` of Qwen with parts of the
type "video". Requests are those of OpenAI's Batch API
(https://platform.openai.com/docs/api-reference/batch/request-input), with the video as a part
{"type": "video_url", "video_url": {"url": ...}} as in vLLM.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

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
from pandacli.batch.readers.json_entries import kind
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
_SHOWN = 80


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
    """The question of a request; its `temperature`, `top_p`, `seed` and `stop` are not used.

    Raises:
        RecordError: It has an earlier answer in it, not one local video, or another endpoint.
    """
    endpoint = fields.get("url", _ENDPOINT)
    if not isinstance(endpoint, str) or not endpoint.endswith(_ENDPOINT):
        raise RecordError(f"the field 'url' is not {_ENDPOINT}")
    if isinstance(fields.get("custom_id"), list | dict):
        raise RecordError(f"the field 'custom_id' is {kind(fields['custom_id'])}, not a string")
    body = _member(fields, "body", dict)
    if body.get("n") not in (None, 1):
        raise RecordError("the request wants several answers ('n'); there is one to a question")
    messages = list(_messages(_member(body, "messages", list)))
    if any(message.role == "assistant" for message in messages):
        raise RecordError("the messages have an earlier answer; a record is one question")
    limits = "max_completion_tokens", "max_tokens"
    limit = next((name for name in limits if body.get(name) is not None), limits[0])
    return _record(
        *(fields, line, "messages"),
        [video for message in messages for video in message.videos],
        question="\n".join(m.text for m in messages if m.role == "user" and m.text),
        system="\n".join(m.text for m in messages if m.role == "system" and m.text),
        limit=max_tokens(body, limit),
    )


def read_conversation(fields: dict[str, Any], line: int) -> list[Record]:
    """The question of the first turn; later turns depend on answers, and are not asked.

    Raises:
        RecordError: There is no question in it, or not one video.
    """
    where, messages = _conversation(fields)
    question = next((message.text for message in messages if message.role == "user"), None)
    if question is None:
        raise RecordError(f"the {where} have no turn of a user")
    systems = [fields.get("system"), *(m.text for m in messages if m.role == "system")]
    return _record(
        *(fields, line, where),
        list(dict.fromkeys([*_videos_beside(fields), *(v for m in messages for v in m.videos)])),
        question=_VIDEO_TAG.sub("\n", question).strip(),
        system=systems[-1] if isinstance(systems[-1], str) else "",
        limit=max_tokens(fields, "max_tokens"),
    )


def reference_answer(fields: dict[str, Any]) -> str | None:
    """The answer to the first question of a conversation; None where there is none."""
    try:
        _, messages = _conversation(fields)
    except RecordError:
        return None
    asked = 0
    for message in messages:
        asked += message.role == "user"
        if message.role == "assistant" and asked == 1:
            return message.text
    return None


def count_turns(fields: dict[str, Any]) -> int:
    """The number of questions in a conversation; 0 where it cannot be read."""
    try:
        return sum(message.role == "user" for message in _conversation(fields)[1])
    except RecordError:
        return 0


def _conversation(fields: dict[str, Any]) -> tuple[str, list[_Message]]:
    where = next(name for name in _LISTS if isinstance(fields.get(name), list))
    return where, list(_messages(fields[where]))


def _messages(entries: list[Any]) -> Iterator[_Message]:
    for entry in entries:
        if not isinstance(entry, dict):
            raise RecordError(f"a message is {kind(entry)}, not an object")
        written = entry.get("role", entry.get("from"))
        role = _ROLES.get(str(written))
        if role is None:
            raise RecordError(
                f"a message has the role {str(written)[:_SHOWN]!r}, not user or system"
            )
        content = entry["value"] if "value" in entry else _member(entry, "content", object)
        yield _Message(role, *_content(content))


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
        value = part.get(which) if isinstance(which, str) else None
        if which == "text":
            texts.append(_member(part, "text", str))
        elif which in ("video", "video_url"):
            value = value.get("url") if isinstance(value, dict) else value
            if not isinstance(value, str):
                raise RecordError("a video in the messages is not a file")
            videos.append(value)
        else:
            raise RecordError(f"a message has a part of the type {str(which)[:_SHOWN]!r}")
    return "\n".join(texts), videos


def _record(
    fields: dict[str, Any],
    line: int,
    where: str,
    videos: list[str],
    *,
    question: str,
    system: str,
    limit: int | None,
) -> list[Record]:
    if len(videos) != 1:
        raise RecordError(f"the {where} have {len(videos) or 'no'} videos, not one")
    video = videos[0]
    if ":" in video:
        try:
            path = local_file(video)
        except ClipError as error:
            raise RecordError(error.message, error.hint) from None
        video = str(path) if video[:5].lower() == "file:" else video
    question, video = question_text(question, where), video_name(video)
    system = whole_text(system, "system")
    start, end = time_range(fields)
    return [Record(line, fields, video, question, start, end, system or None, limit)]


def _videos_beside(fields: dict[str, Any]) -> list[str]:
    name = next((name for name in VIDEO if isinstance(fields.get(name), str | list | dict)), None)
    found = fields.get("videos") or fields.get(name or "video") or []
    paths = [path_in(each) for each in (found if isinstance(found, list) else [found])]
    videos = [path for path in paths if path is not None]
    if len(videos) < len(paths):
        raise RecordError("the videos beside the messages are not a list of files")
    return videos


def _member(fields: dict[str, Any], name: str, wanted: type) -> Any:
    if name not in fields:
        raise RecordError(f"the field {name!r} is missing{nearest(name, fields)}")
    value = fields[name]
    if not isinstance(value, wanted):
        raise RecordError(f"the field {name!r} is {kind(value)}, not {kind(wanted())}")
    return value
