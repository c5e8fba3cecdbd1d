"""By what a record is known again: 64 bits of its content, and of the settings it is asked with.

Where a record stands is no part of it: lines may move, and what is answered stays answered. An
edited question, another model or another setting is another digest, and is asked.
"""

import json
from collections.abc import Callable, Mapping
from hashlib import blake2b
from json.encoder import encode_basestring_ascii
from typing import Any

from pandacli.batch.records import Record, RecordError

_BYTES = 8
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def record_digest(record: Record, settings: Mapping[str, Any]) -> int:
    """The digest of one record; `record_hash` is for many.

    Args:
        record: The record.
        settings: All that an answer depends on besides, as a JSON object.

    Returns:
        64 bits, unsigned.

    Raises:
        RecordError: The record cannot be written as JSON.
    """
    return record_hash(settings)(record)


def record_hash(settings: Mapping[str, Any]) -> Callable[[Record], int]:
    """The function that gives the digests of records that are asked with these settings."""
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
    """The digest of what a record asks about: records of one clip have the same."""
    start = None if record.start is None else float(record.start)
    end = None if record.end is None else float(record.end)
    clip = f"{encode_basestring_ascii(record.video)} {start} {end}".encode()
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


def _content(record: Record) -> bytes:
    try:
        return _canonical([record.fields, record.question, record.part])
    except RecursionError as error:
        raise RecordError(f"line {record.line} is nested too deeply") from error


def _canonical(value: object) -> bytes:
    return _CANONICAL.encode(value).encode()
