"""The open records of a file, grouped by clip."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from pandacli.batch.records import BadLine, Index, Record, RecordError, RecordStore, record_hash

SETTINGS = {"model": "tiny"}
BAD = "not a record"

stores: list[RecordStore] = []


@pytest.fixture(autouse=True)
def closed_stores() -> Iterator[None]:
    yield
    while stores:
        stores.pop().close()


def store(*entries: Any) -> RecordStore:
    """Records of these entries; a text is a bad line."""
    records = RecordStore("q.jsonl")
    stores.append(records)
    for line, entry in enumerate(entries, 1):
        if isinstance(entry, str):
            records.append(BadLine(line, RecordError(entry)))
            continue
        asked = entry["q"] if isinstance(entry["q"], list) else [entry["q"]]
        for part, question in enumerate(asked):
            records.append(Record(line, entry, entry["video"], question, part=part))
    return records


def ask(video: str, question: Any, **more: Any) -> dict[str, Any]:
    return {"video": video, "q": question, **more}


def digests(records: RecordStore) -> list[int]:
    return list(Index(records, SETTINGS).digests)


def asked(index: Index) -> list[list[tuple[int, str]]]:
    """Line and question of all open records, by clip."""
    return [[(q.record.line, q.record.question) for q in group] for group in index.groups()]


def test_records_are_grouped_by_clip_in_file_order() -> None:
    records = store(ask("b", "1"), ask("a", "2"), ask("b", "3"), ask("c", "4"), ask("a", "5"))
    assert asked(Index(records, SETTINGS)) == [
        [(1, "1"), (3, "3")],
        [(2, "2"), (5, "5")],
        [(4, "4")],
    ]


def test_counts_include_bad_lines() -> None:
    records = store(ask("b", "1"), BAD, ask("a", "2"), ask("a", "3"))
    index = Index(records, SETTINGS, digests(records)[2:3])
    assert (index.total, index.earlier, index.clips) == (4, 1, 2)


def test_empty_file_has_no_clips() -> None:
    index = Index(store(), SETTINGS)
    assert (index.total, index.clips, list(index.groups())) == (0, 0, [])


def test_answered_records_are_not_open() -> None:
    records = store(ask("a", "1"), ask("b", "2"), ask("a", "3"))
    assert asked(Index(records, SETTINGS, digests(records)[:2])) == [[(3, "3")]]


def test_clips_are_ordered_by_first_open_record() -> None:
    records = store(ask("a", "1"), ask("b", "2"), ask("a", "3"))
    assert asked(Index(records, SETTINGS, digests(records)[:1])) == [[(2, "2")], [(3, "3")]]


def test_answers_of_removed_records_do_not_count() -> None:
    index = Index(store(ask("a", "1")), SETTINGS, [5, 2**64 - 1])
    assert (index.total, index.earlier, index.clips) == (1, 0, 1)


@pytest.mark.parametrize("answers", [0, 1, 2, 3, 4])
def test_equal_records_are_answered_as_often_as_they_occur(answers: int) -> None:
    records = store(*[ask("a", "same")] * 3)
    index = Index(records, SETTINGS, digests(records)[:1] * answers)
    assert index.earlier == min(answers, 3)


def test_first_of_equal_records_are_the_answered_ones() -> None:
    records = store(*[ask("a", "same")] * 3)
    index = Index(records, SETTINGS, digests(records)[:1])
    assert asked(index) == [[(2, "same"), (3, "same")]]


def test_entry_with_several_questions_is_several_records() -> None:
    records = store(ask("a", ["1", "2"]), ask("b", ["3"]))
    index = Index(records, SETTINGS, digests(records)[:1])
    assert asked(index) == [[(1, "2")], [(2, "3")]]


def test_length_of_a_group_is_its_number_of_records() -> None:
    index = Index(store(ask("a", "1"), ask("b", "2"), ask("a", "3")), SETTINGS)
    assert [len(group) for group in index.groups()] == [2, 1]


def test_group_can_be_iterated_twice() -> None:
    group = next(Index(store(ask("a", "1"), ask("a", "2")), SETTINGS).groups())
    assert list(group) == list(group)


def test_questions_have_the_digests_of_their_records() -> None:
    (question,) = next(Index(store(ask("a", "1")), SETTINGS).groups())
    assert question.digest == record_hash(SETTINGS)(question.record)


def test_bad_lines_keep_their_errors() -> None:
    index = Index(store(ask("a", "1"), "one", "two"), SETTINGS)
    assert [(bad.line, str(bad.error)) for bad in index.bad_lines()] == [(2, "one"), (3, "two")]


def test_records_read_back_are_equal() -> None:
    record = Record(3, {"é": [None, 1e9, 10**300, "\ud800"]}, "v", "?", 0.5, None, "s", 7, 1, 2)
    records = store()
    records.append(record)
    assert list(records) == [record]


def test_bad_line_read_back_keeps_its_fields() -> None:
    error = RecordError("why")
    error.fields = {"id": 3}
    records = store()
    records.append(BadLine(4, error))
    (bad,) = records
    assert isinstance(bad, BadLine)
    assert (bad.line, bad.error.message, bad.error.fields) == (4, "why", {"id": 3})


def scattered(count: int) -> RecordStore:
    chance = random.Random(5)
    entries: list[Any] = [ask(f"{chance.randrange(30)}", n, id=n) for n in range(count)]
    entries[::7] = [f"bad {n}" for n in range(len(entries[::7]))]
    return store(*entries)


def test_shards_together_have_the_whole_file() -> None:
    records = scattered(300)
    shards = [Index(records, SETTINGS, shard=(n, 4)) for n in (1, 2, 3, 4)]
    open_lines = [line for index in shards for group in asked(index) for line, _ in group]
    bad_lines = [bad.line for index in shards for bad in index.bad_lines()]
    assert sorted(open_lines + bad_lines) == list(range(1, 301))
    assert sum(index.total for index in shards) == 300
    assert all(list(index.digests) == digests(records) for index in shards)


def test_no_clip_is_in_two_shards() -> None:
    records = scattered(300)
    shards = [Index(records, SETTINGS, shard=(n, 4)) for n in (1, 2, 3, 4)]
    assert sum(index.clips for index in shards) == 30


def test_random_answers_leave_the_difference_of_the_counts() -> None:
    chance = random.Random(11)
    for _ in range(50):
        records = store(*[ask(chance.choice("ab"), chance.choice("12")) for _ in range(12)])
        answered = chance.choices(digests(records), k=chance.randrange(12))
        index = Index(records, SETTINGS, answered)
        left = Counter(digests(records)) - Counter(answered)
        assert Counter(entry.digest for group in index.groups() for entry in group) == left


def test_digests_are_those_of_groups_and_bad_lines() -> None:
    index = Index(store(ask("a", ["1", "2"]), BAD, ask("a", "3")), SETTINGS)
    one, two, three = (question.digest for group in index.groups() for question in group)
    (bad,) = index.bad_lines()
    assert list(index.digests) == [one, two, bad.digest, three]
