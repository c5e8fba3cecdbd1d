"""What kind of file of questions something is, by how it begins."""

import json
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from pandacli.batch.readers.by_video import questions_by_video
from pandacli.batch.readers.conversations import is_conversation, is_request
from pandacli.batch.readers.fields import PAIR, names_in
from pandacli.batch.readers.source import Source
from pandacli.batch.readers.tables import MAGIC, header_of, parquet_rows
from pandacli.errors import ClipError

Layout = Literal["lines", "array", "table", "by video", "parquet"]

_HEAD = 1 << 18
_LINES = (".jsonl", ".ndjson", ".jsonlines")
_TABLES = (".csv", ".tsv")
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_HINT = 'a line of it is like {"video": "clip.mp4", "question": "..."}; see --format'


@dataclass(frozen=True)
class Guess:
    """A kind of file.

    Attributes:
        layout: How entries lie in it: one JSON object a line, a JSON array, a table, one object
            with the questions of each video, or Parquet.
        format: What the entries are called, one of `FORMATS`.
    """

    layout: Layout
    format: str


def guess(source: Source, wanted: str) -> Guess:
    """The kind of a file.

    Args:
        source: The file.
        wanted: The format that the user named, or "auto".

    Raises:
        ClipError: It is no file of questions.
        UsageError: What reads it is not installed.
    """
    head = source.at(source.start, _HEAD)
    if head.startswith(_WIDE):
        raise ClipError(f"{source.name} is UTF-16", "save it as UTF-8")
    if head.startswith(MAGIC):
        first = next(parquet_rows(source), {})
        return Guess("parquet", _format(first) if wanted in ("auto", "csv") else wanted)
    if wanted == "csv":
        return Guess("table", "csv")
    if wanted == "jsonl" and not head.lstrip().startswith(b"["):
        return Guess("lines", "jsonl")
    layout = _layout(source, head, wanted == "auto")
    if layout == "table":
        return Guess(layout, "csv")
    return Guess(layout, _format(_first_object(head, layout)) if wanted == "auto" else wanted)


def _layout(source: Source, head: bytes, tables: bool) -> Layout:
    begin = head.lstrip()
    if begin.startswith(b"["):
        return "array" if _is_array(source, begin) else "lines"
    if begin.startswith(b"{"):
        if _is_by_video(source, begin):
            return "by video"
        if (
            PurePath(source.name).suffix.lower() == ".json"
            and begin[1:].lstrip(b" \t\r")[:1] == b"\n"
        ):
            raise ClipError(f"{source.name} is one JSON object, not a list of questions", _HINT)
        return "lines"
    suffix = PurePath(source.name).suffix.lower()
    if tables and (suffix in _TABLES or (suffix not in _LINES and header_of(source))):
        return "table"
    lines = begin.split(b"\n")
    if not begin or any(line.lstrip().startswith(b"{") for line in lines):
        return "lines"
    if b"\0" in head or suffix not in _LINES:
        raise ClipError(f"{source.name} is not a file of questions", _HINT)
    return "lines"


def _is_by_video(source: Source, begin: bytes) -> bool:
    """Whether the file is one object of videos, and not an entry a line."""
    if PurePath(source.name).suffix.lower() in _LINES:
        return False
    first = _loaded(begin.partition(b"\n")[0])
    if isinstance(first, dict) and (names_in(first) or is_request(first) or is_conversation(first)):
        return False
    return bool(questions_by_video(source))


def _is_array(source: Source, begin: bytes) -> bool:
    """Whether a bracket begins an array of entries; a damaged line can begin with one too."""
    first, *rest = [line for line in map(bytes.strip, begin.split(b"\n")) if line]
    objects = [isinstance(_loaded(line), dict) for line in rest[:2]]
    if all(objects) and (len(objects) == 2 or (objects and first != b"[" and first[-1:] != b",")):
        return False
    if PurePath(source.name).suffix.lower() not in _LINES:
        return True
    return begin[1:].lstrip()[:1] in (b"{", b"]", b"")


def _first_object(head: bytes, layout: Layout) -> dict[str, Any]:
    """The first entry that can be read; empty if none can."""
    if layout == "lines":
        values = map(_loaded, head.split(b"\n"))
        return next((value for value in values if isinstance(value, dict)), {})
    text = head.decode("utf-8", "ignore").lstrip()[1:].lstrip()
    try:
        value, _ = json.JSONDecoder(parse_int=len).raw_decode(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _loaded(line: bytes) -> Any:
    """The value of a line; None where it has none."""
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _format(fields: dict[str, Any]) -> str:
    if is_request(fields):
        return "openai"
    if is_conversation(fields):
        return "jsonl"
    if all(name in fields for name in PAIR):
        return "consistency"
    if "Q" in fields and "question" not in fields:
        return "generic"
    if "video" not in fields and ("video_name" in fields or "video_id" in fields):
        return "qa"
    return "jsonl"
