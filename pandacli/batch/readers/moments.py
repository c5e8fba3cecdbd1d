"""Moment retrieval: the layouts of Charades-STA and QVHighlights, and the segments in entries.

Charades-STA (jiyanggao/TALL) has lines of `VIDEO START END##sentence`. QVHighlights
(jayleicn/moment_detr) has an object a line with "qid", "query", "vid" and "duration", and but for
its test split "relevant_windows"; predictions have "pred_relevant_windows" instead.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from pandacli.batch.readers.entries import MOST_BYTES, TOO_LONG, Entry, Source, checked_fields
from pandacli.batch.readers.fields import named_fields
from pandacli.batch.records import Record, RecordError
from pandacli.errors import UsageError
from pandacli.video.clip import parse_time
from pandacli.video.windows import Span

RIGHT = "relevant_windows"
"""The field of the right segments, a list of [start, end] in seconds."""

RETRIEVED = "pred_relevant_windows"
"""The field of predicted segments in the files of others, a list of [start, end, score]."""

_SENTENCE = re.compile(r"(\S.*?)\s+(\d+(?:\.\d*)?)\s+(\d+(?:\.\d*)?)\s*##(.*)")
_LISTED = re.compile(r"([\d:.]+) - ([\d:.]+)  (\d\.\d+)")
_EXAMINED = 64  # lines


class Retrieved(NamedTuple):
    """A predicted segment, in seconds, and how sure it is; of any range."""

    start: float
    end: float
    score: float


def is_charades(source: Source) -> bool:
    """Whether a file has lines of Charades-STA; any of the first may be damaged."""
    first = islice(source.lines(), _EXAMINED)
    return any(_SENTENCE.fullmatch(_text(line)) for _, line in first)


def charades_entries(source: Source) -> Iterator[Entry]:
    """The lines of Charades-STA as entries of our own."""
    for number, line in source.lines():
        yield number, _charades_fields(line)


def _charades_fields(line: bytes) -> dict[str, Any] | RecordError:
    found = _SENTENCE.fullmatch(_text(line))
    if len(line) > MOST_BYTES:
        return RecordError(TOO_LONG)
    if found is None:
        return RecordError("not a line of Charades-STA, which is like VIDEO 1.5 6.0##sentence")
    video, *times, sentence = found.groups()
    window = [float(time) for time in times]
    entry = {"video": video, "question": sentence.strip(), "when": True, RIGHT: [window]}
    return checked_fields(entry)


def _text(line: bytes) -> str:
    return line[:MOST_BYTES].decode("utf-8", "replace").strip()


_read_fields = named_fields("vid", "query")


def read_highlights(fields: dict[str, Any], line: int) -> list[Record]:
    """The query of an entry of QVHighlights."""
    records = _read_fields(fields | {"when": True}, line)
    return [replace(record, fields=fields) for record in records]


def right_segments(fields: Mapping[str, Any]) -> tuple[Span, ...]:
    """The right segments of an entry; empty where it has none, or none that can be read."""
    read = _segments(fields.get(RIGHT))
    return tuple(Span(start, end) for start, end, *_ in read or ())


def retrieved_segments(fields: Mapping[str, Any]) -> tuple[Retrieved, ...] | None:
    """The predicted segments of an entry or of one of our results, as listed; None without."""
    ours = fields.get("segments") if "digest" in fields else None
    if isinstance(ours, list):
        names = ("start", "end", "probability")
        found = [[s.get(n) for n in names] if isinstance(s, dict) else s for s in ours]
    elif isinstance(held := fields.get(RETRIEVED), list):
        found = held
    else:
        return None
    read = _segments(found)
    if read is None:
        return None
    # one without a score has that of its place
    return tuple(Retrieved(s, e, *(rest or [-float(n)])) for n, (s, e, *rest) in enumerate(read))


def listed_segments(answer: str) -> tuple[Retrieved, ...] | None:
    """The segments in the text of an answer of ours, one a line; None for another text."""
    found = [_LISTED.fullmatch(line) for line in answer.splitlines()]
    if not all(found):
        return None
    with suppress(UsageError):  # a time that is none
        return tuple(
            Retrieved(parse_time(line[1]), parse_time(line[2]), float(line[3]))
            for line in found
            if line
        )
    return None


def _segments(value: Any) -> list[list[float]] | None:
    """Lists of a start, an end and perhaps a score; None where it is something else."""
    if isinstance(value, str):  # a cell of a table
        with suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, list):
        return None
    return value if all(map(_is_segment, value)) else None


def _is_segment(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (2, 3)
        and all(type(number) in (int, float) and math.isfinite(number) for number in value)
        and 0 <= value[0] <= value[1]
    )
