"""Requests in the shape of OpenAI's Batch API: what they ask, as a record.

The shape: https://platform.openai.com/docs/api-reference/batch/request-input; the part with the
video is that of vLLM, `{"type": "video_url", "video_url": {"url": ...}}`.
"""

from dataclasses import dataclass, field
from typing import Any

from pandacli.batch.formats.fields import (
    max_tokens,
    nearest,
    question_text,
    time_range,
    video_name,
    whole_text,
)
from pandacli.batch.formats.strict import kind
from pandacli.batch.records import Record, RecordError
from pandacli.errors import ClipError
from pandacli.video.clip import local_file

_ENDPOINT = "/v1/chat/completions"
_SHOWN = 80


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
            texts, videos = _parts(message)
            self.system += texts
        elif role == "user":
            texts, videos = _parts(message)
            self.questions += texts
        elif role == "assistant":
            raise RecordError("the messages have an earlier answer; a record is one question")
        else:
            raise RecordError(f"a message has the role {str(role)[:_SHOWN]!r}, not user or system")
        self.videos += videos


def _parts(message: dict[str, Any]) -> tuple[list[str], list[str]]:
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
            raise RecordError(f"a message has a part of the type {str(which)[:_SHOWN]!r}")
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
