"""By what a record is known again: 64 bits of its content, and of the settings it is asked with.

Where a record stands is no part of it: lines may move, and what is answered stays answered. An
edited question, another model or another setting is another digest, and is asked.

A record: one question about one clip.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from json.encoder import encode_basestring_ascii
from typing import Any

from pandacli.errors import PandaError


@dataclass(frozen=True)
class Record:
    """One question about one clip, as a file of questions has it.

    Attributes:
        line: Where it stands in the file, from 1: the line, or the number of the entry.
        fields: All that the file says of it, untouched and in its order.
        video: The file as it is written there.
        question: What is asked.
        start: First moment asked about, in seconds; None for the beginning.
        end: The moment to stop at, in seconds; None for the end.
        system: The system prompt; None for that of the run.
        max_tokens: The most tokens of answer; None for that of the run.
        part: Which question of its entry it is, from 0, where an entry has several.
        parts: How many questions its entry has.
    """

    line: int
    fields: dict[str, Any]
    video: str
    question: str
    start: float | None = None
    end: float | None = None
    system: str | None = None
    max_tokens: int | None = None
    part: int = 0
    parts: int = 1


class RecordError(PandaError):
    """A line of a file of questions that is no record; the rest of the file is answered.

    Attributes:
        fields: What the line says, where that much could be read; else None.
    """

    fields: dict[str, Any] | None = None


_BYTES = 8
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def record_hash(settings: Mapping[str, Any]) -> Callable[[Record], int]:
    """What gives the digests of records.

    Args:
        settings: All that an answer depends on besides the record, as a JSON object.

    Returns:
        A function from a record to 64 bits, unsigned; it raises RecordError for a record that
        cannot be written as JSON.
    """
    begun = blake2b(_canonical(settings), digest_size=_BYTES)

    def digest(record: Record) -> int:
        hashed = begun.copy()
        hashed.update(_content(record))
        return int.from_bytes(hashed.digest())

    return digest


def line_digest(raw: bytes) -> int:
    """The digest of a line that is no record."""
    return int.from_bytes(blake2b(raw, digest_size=_BYTES, person=b"line").digest())


def clip_digest(record: Record) -> int:
    """The digest of what a record asks about: records of one clip have the same.

    `./a.mp4` is `a.mp4`. What `b/../a.mp4` is, only the disk knows: `b` may be a link.
    """
    video = encode_basestring_ascii(_plain(record.video))
    start = None if record.start is None else float(record.start)
    end = None if record.end is None else float(record.end)
    clip = f"{video} {start} {end}".encode()
    return int.from_bytes(blake2b(clip, digest_size=_BYTES, person=b"clip").digest())


def digest_text(digest: int) -> str:
    """A digest as it stands in files: 16 hexadecimal digits."""
    return f"{digest:016x}"


def belongs_to(clip: int, shard: int, shards: int) -> bool:
    """Whether a clip is one of this shard's.

    Args:
        clip: Its digest.
        shard: The number of the shard, from 1.
        shards: How many there are.
    """
    return clip % shards == shard - 1


def _plain(path: str) -> str:
    # not a PurePath: that keeps the names of all files in memory, for as long as Python runs
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/" * path.startswith("/") + "/".join(parts)


def _content(record: Record) -> bytes:
    try:
        return _canonical([record.fields, record.question, record.part])
    except RecursionError as error:
        raise RecordError(f"line {record.line} is nested too deeply") from error


def _canonical(value: object) -> bytes:
    return _CANONICAL.encode(value).encode()
