"""What makes a record another record, and what does not."""

from dataclasses import replace
from typing import Any

import pytest

from pandacli.batch.records import (
    BadLine,
    Record,
    RecordError,
    belongs_to,
    clip_digest,
    digest_text,
    record_hash,
)

SETTINGS = {"model": "tiny", "frames": 8, "seed": None}
RECORD = Record(3, {"video": "a.mp4", "question": "why?", "id": 7}, "a.mp4", "why?")

digest_of = record_hash(SETTINGS)


def test_a_record_has_the_same_digest_in_every_run() -> None:
    assert digest_text(digest_of(RECORD)) == "9c7f54e2ec7ca006"


def test_lines_may_move() -> None:
    assert digest_of(replace(RECORD, line=9)) == digest_of(RECORD)


def test_the_order_of_fields_does_not_matter() -> None:
    turned = replace(RECORD, fields=dict(reversed(RECORD.fields.items())))
    assert digest_of(turned) == digest_of(RECORD)


@pytest.mark.parametrize(
    "change",
    [{"fields": RECORD.fields | {"id": 8}}, {"question": "how?"}, {"part": 1}],
    ids=["field", "question", "part"],
)
def test_what_is_edited_is_another_record(change: dict[str, Any]) -> None:
    assert digest_of(replace(RECORD, **change)) != digest_of(RECORD)


def test_other_settings_ask_again() -> None:
    assert record_hash(SETTINGS | {"frames": 4})(RECORD) != digest_of(RECORD)


def test_one_record_leaves_nothing_in_the_digest_of_the_next() -> None:
    hashed = record_hash(SETTINGS)
    hashed(replace(RECORD, question="how?"))
    assert hashed(RECORD) == digest_of(RECORD)


def test_text_that_is_no_unicode_has_a_digest() -> None:
    odd = replace(RECORD, fields={"question": "\ud800"})
    assert digest_of(odd) != digest_of(RECORD)


def test_fields_nested_too_deeply_are_no_record() -> None:
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    with pytest.raises(RecordError, match="line 3 is nested too deeply"):
        digest_of(replace(RECORD, fields={"deep": deep}))


def test_a_digest_is_16_digits() -> None:
    assert digest_text(255) == "00000000000000ff"


def test_bad_lines_differ_by_line_and_by_error() -> None:
    bad = BadLine(1, RecordError("one"))
    assert bad.digest == BadLine(1, RecordError("one")).digest
    assert bad.digest not in (BadLine(2, bad.error).digest, BadLine(1, RecordError("two")).digest)


@pytest.mark.parametrize("change", [{"question": "how?"}, {"part": 1}, {"line": 9}])
def test_questions_about_one_clip_share_its_digest(change: dict[str, Any]) -> None:
    assert clip_digest(replace(RECORD, **change)) == clip_digest(RECORD)


@pytest.mark.parametrize("written", ["./a.mp4", "././/a.mp4"])
def test_a_path_may_be_written_otherwise(written: str) -> None:
    assert clip_digest(replace(RECORD, video=written)) == clip_digest(RECORD)


def test_what_is_above_a_folder_is_left_to_the_disk() -> None:
    assert clip_digest(replace(RECORD, video="b/../a.mp4")) != clip_digest(RECORD)


@pytest.mark.parametrize("change", [{"video": "b.mp4"}, {"start": 0.0}, {"end": 2.0}])
def test_another_range_is_another_clip(change: dict[str, Any]) -> None:
    assert clip_digest(replace(RECORD, **change)) != clip_digest(RECORD)


def test_whole_seconds_are_seconds() -> None:
    assert clip_digest(replace(RECORD, start=1)) == clip_digest(replace(RECORD, start=1.0))


def test_every_clip_belongs_to_one_shard() -> None:
    owners = [[shard for shard in (1, 2, 3) if belongs_to(clip, shard, 3)] for clip in range(9)]
    assert owners == [[1], [2], [3]] * 3
