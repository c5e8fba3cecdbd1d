"""What makes a record another record, and what does not."""

from dataclasses import replace
from typing import Any

import pytest

from pandacli.batch.digest import (
    belongs_to,
    clip_digest,
    digest_text,
    line_digest,
    record_digest,
    record_hash,
)
from pandacli.batch.records import Record, RecordError

SETTINGS = {"model": "tiny", "frames": 8, "seed": None}
RECORD = Record(3, {"video": "a.mp4", "question": "why?", "id": 7}, "a.mp4", "why?")


def test_a_record_has_the_same_digest_in_every_run() -> None:
    assert digest_text(record_digest(RECORD, SETTINGS)) == "9c7f54e2ec7ca006"


def test_lines_may_move() -> None:
    assert record_digest(replace(RECORD, line=9), SETTINGS) == record_digest(RECORD, SETTINGS)


def test_the_order_of_fields_does_not_matter() -> None:
    turned = replace(RECORD, fields=dict(reversed(RECORD.fields.items())))
    assert record_digest(turned, SETTINGS) == record_digest(RECORD, SETTINGS)


@pytest.mark.parametrize(
    "change",
    [{"fields": RECORD.fields | {"id": 8}}, {"question": "how?"}, {"part": 1}],
    ids=["field", "question", "part"],
)
def test_what_is_edited_is_another_record(change: dict[str, Any]) -> None:
    assert record_digest(replace(RECORD, **change), SETTINGS) != record_digest(RECORD, SETTINGS)


def test_other_settings_ask_again() -> None:
    assert record_digest(RECORD, SETTINGS | {"frames": 4}) != record_digest(RECORD, SETTINGS)


def test_many_digests_are_those_of_one() -> None:
    hashed = record_hash(SETTINGS)
    assert [hashed(RECORD), hashed(RECORD)] == [record_digest(RECORD, SETTINGS)] * 2


def test_text_that_is_no_unicode_has_a_digest() -> None:
    odd = replace(RECORD, fields={"question": "\ud800"})
    assert record_digest(odd, SETTINGS) != record_digest(RECORD, SETTINGS)


def test_fields_nested_too_deeply_are_no_record() -> None:
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    with pytest.raises(RecordError, match="line 3 is nested too deeply"):
        record_digest(replace(RECORD, fields={"deep": deep}), SETTINGS)


def test_a_digest_is_16_digits() -> None:
    assert digest_text(255) == "00000000000000ff"


def test_a_bad_line_is_known_by_its_bytes() -> None:
    assert line_digest(b"{") != line_digest(b"{ ")


@pytest.mark.parametrize("change", [{"question": "how?"}, {"part": 1}, {"line": 9}])
def test_questions_about_one_clip_share_its_digest(change: dict[str, Any]) -> None:
    assert clip_digest(replace(RECORD, **change)) == clip_digest(RECORD)


@pytest.mark.parametrize("change", [{"video": "b.mp4"}, {"start": 0.0}, {"end": 2.0}])
def test_another_range_is_another_clip(change: dict[str, Any]) -> None:
    assert clip_digest(replace(RECORD, **change)) != clip_digest(RECORD)


def test_whole_seconds_are_seconds() -> None:
    assert clip_digest(replace(RECORD, start=1)) == clip_digest(replace(RECORD, start=1.0))


def test_every_clip_belongs_to_one_shard() -> None:
    owners = [[shard for shard in (1, 2, 3) if belongs_to(clip, shard, 3)] for clip in range(9)]
    assert owners == [[1], [2], [3]] * 3
