"""Digests of records, clips and bad lines."""

from dataclasses import replace
from typing import Any

import pytest

from pandacli.batch.records import (
    BadLine,
    Record,
    RecordError,
    clip_digest,
    record_hash,
)

SETTINGS = {"model": "tiny", "frames": 8, "seed": None}
RECORD = Record(3, {"video": "a.mp4", "question": "why?", "id": 7}, "a.mp4", "why?")

digest_of = record_hash(SETTINGS)


def test_digest_is_stable_between_versions() -> None:
    assert digest_of(RECORD) == 0x9C7F54E2EC7CA006


def test_line_number_does_not_change_the_digest() -> None:
    assert digest_of(replace(RECORD, line=9)) == digest_of(RECORD)


def test_field_order_does_not_change_the_digest() -> None:
    turned = replace(RECORD, fields=dict(reversed(RECORD.fields.items())))
    assert digest_of(turned) == digest_of(RECORD)


@pytest.mark.parametrize(
    "change",
    [{"fields": RECORD.fields | {"id": 8}}, {"question": "how?"}, {"part": 1}],
    ids=["field", "question", "part"],
)
def test_edited_record_has_another_digest(change: dict[str, Any]) -> None:
    assert digest_of(replace(RECORD, **change)) != digest_of(RECORD)


def test_other_settings_change_the_digest() -> None:
    assert record_hash(SETTINGS | {"frames": 4})(RECORD) != digest_of(RECORD)


def test_digest_does_not_depend_on_earlier_records() -> None:
    hashed = record_hash(SETTINGS)
    hashed(replace(RECORD, question="how?"))
    assert hashed(RECORD) == digest_of(RECORD)


def test_unpaired_surrogate_has_a_digest() -> None:
    odd = replace(RECORD, fields={"question": "\ud800"})
    assert digest_of(odd) != digest_of(RECORD)


def test_deeply_nested_fields_are_a_record_error() -> None:
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    with pytest.raises(RecordError, match="line 3 is nested too deeply"):
        digest_of(replace(RECORD, fields={"deep": deep}))


def test_bad_lines_differ_by_line_and_by_error() -> None:
    bad = BadLine(1, RecordError("one"))
    assert bad.digest == BadLine(1, RecordError("one")).digest
    assert bad.digest not in (BadLine(2, bad.error).digest, BadLine(1, RecordError("two")).digest)


@pytest.mark.parametrize("change", [{"question": "how?"}, {"part": 1}, {"line": 9}])
def test_records_of_one_clip_share_its_digest(change: dict[str, Any]) -> None:
    assert clip_digest(replace(RECORD, **change)) == clip_digest(RECORD)


@pytest.mark.parametrize("written", ["./a.mp4", "././/a.mp4"])
def test_redundant_path_parts_do_not_change_the_clip(written: str) -> None:
    assert clip_digest(replace(RECORD, video=written)) == clip_digest(RECORD)


def test_parent_folders_are_not_resolved() -> None:
    assert clip_digest(replace(RECORD, video="b/../a.mp4")) != clip_digest(RECORD)


@pytest.mark.parametrize("change", [{"video": "b.mp4"}, {"start": 0.0}, {"end": 2.0}])
def test_other_range_is_another_clip(change: dict[str, Any]) -> None:
    assert clip_digest(replace(RECORD, **change)) != clip_digest(RECORD)


def test_int_and_float_seconds_are_equal() -> None:
    assert clip_digest(replace(RECORD, start=1)) == clip_digest(replace(RECORD, start=1.0))
