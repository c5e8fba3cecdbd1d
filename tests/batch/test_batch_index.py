"""Which questions are open, grouped by clip, without holding them."""

import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pandacli.batch.record_index import BadLine, Index, Question, every_entry
from pandacli.batch.records import Record, RecordError, digest_text, record_hash

SETTINGS = {"model": "tiny"}


class Lines:
    """Questions in memory; an entry with several questions has a list of them."""

    def __init__(self, *entries: Any) -> None:
        self.raw = [e if isinstance(e, bytes) else json.dumps(e).encode() for e in entries]
        self.parsed = 0

    def entries(self) -> Iterator[tuple[int, int, bytes]]:
        for number, raw in enumerate(self.raw):
            yield number * 100, number + 1, raw

    def read(self, offset: int) -> bytes:
        return self.raw[offset // 100]

    def records(self, raw: bytes, line: int) -> list[Record]:
        self.parsed += 1
        try:
            fields = json.loads(raw)
            asked = fields["q"] if isinstance(fields["q"], list) else [fields["q"]]
            video = fields["video"]
        except (ValueError, KeyError) as error:
            raise RecordError(f"line {line} is no record: {raw.decode()}") from error
        return [Record(line, fields, video, q, part=part) for part, q in enumerate(asked)]


def ask(video: str, question: Any, **more: Any) -> dict[str, Any]:
    return {"video": video, "q": question, **more}


def digests(questions: Lines) -> list[int]:
    return [entry.digest for _, _, entry in every_entry(questions, SETTINGS)]


def done(*answered: int) -> NDArray[np.uint64]:
    return np.sort(np.array(answered, np.uint64))


def asked(index: Index) -> list[list[tuple[int, str]]]:
    """Line and question of all that is open, by clip."""
    return [
        [(q.record.line, q.record.question) for q in group if isinstance(q, Question)]
        for group in index.groups()
    ]


def test_scattered_questions_come_together_in_the_order_of_the_file() -> None:
    questions = Lines(ask("b", "1"), ask("a", "2"), ask("b", "3"), ask("c", "4"), ask("a", "5"))
    index = Index.build(questions, SETTINGS)
    assert asked(index) == [[(1, "1"), (3, "3")], [(2, "2"), (5, "5")], [(4, "4")]]


def test_everything_is_counted() -> None:
    questions = Lines(ask("b", "1"), b"nonsense", ask("a", "2"), ask("a", "3"))
    index = Index.build(questions, SETTINGS, done(digests(questions)[2]))
    assert (index.total, index.earlier, index.clips) == (4, 1, 2)


def test_a_file_without_questions_has_no_clips() -> None:
    index = Index.build(Lines(), SETTINGS)
    assert (index.total, index.clips, list(index.groups())) == (0, 0, [])


def test_what_is_answered_is_not_open() -> None:
    questions = Lines(ask("a", "1"), ask("b", "2"), ask("a", "3"))
    index = Index.build(questions, SETTINGS, done(*digests(questions)[:2]))
    assert asked(index) == [[(3, "3")]]


def test_clips_come_in_the_order_of_what_is_still_open() -> None:
    questions = Lines(ask("a", "1"), ask("b", "2"), ask("a", "3"))
    index = Index.build(questions, SETTINGS, done(digests(questions)[0]))
    assert asked(index) == [[(2, "2")], [(3, "3")]]


def test_answers_to_questions_that_are_gone_do_not_count() -> None:
    index = Index.build(Lines(ask("a", "1")), SETTINGS, done(5, 2**64 - 1))
    assert (index.total, index.earlier, index.clips) == (1, 0, 1)


@pytest.mark.parametrize("answers", [0, 1, 2, 3, 4])
def test_equal_records_are_answered_as_often_as_they_occur(answers: int) -> None:
    questions = Lines(*[ask("a", "same")] * 3)
    index = Index.build(questions, SETTINGS, done(*digests(questions)[:1] * answers))
    assert index.earlier == min(answers, 3)


def test_the_first_of_equal_records_are_those_with_answers() -> None:
    questions = Lines(*[ask("a", "same")] * 3)
    index = Index.build(questions, SETTINGS, done(digests(questions)[0]))
    assert asked(index) == [[(2, "same"), (3, "same")]]


def test_an_entry_may_ask_several_questions() -> None:
    questions = Lines(ask("a", ["1", "2"]), ask("b", ["3"]))
    index = Index.build(questions, SETTINGS, done(digests(questions)[0]))
    assert asked(index) == [[(1, "2")], [(2, "3")]]


def test_an_entry_with_several_questions_is_read_again_once() -> None:
    questions = Lines(ask("a", ["1", "2", "3"]))
    index = Index.build(questions, SETTINGS)
    before = questions.parsed
    asked(index)
    assert questions.parsed == before + 1


def test_a_clip_knows_how_many_questions_it_has() -> None:
    index = Index.build(Lines(ask("a", "1"), ask("b", "2"), ask("a", "3")), SETTINGS)
    assert [len(group) for group in index.groups()] == [2, 1]


def test_the_questions_of_a_clip_can_be_read_twice() -> None:
    group = next(Index.build(Lines(ask("a", "1"), ask("a", "2")), SETTINGS).groups())
    assert list(group) == list(group)


def test_questions_come_with_their_digests() -> None:
    questions = Lines(ask("a", "1"))
    question = next(iter(next(Index.build(questions, SETTINGS).groups())))
    assert isinstance(question, Question)
    assert question.digest == record_hash(SETTINGS)(question.record)


def test_bad_lines_say_again_what_is_wrong() -> None:
    index = Index.build(Lines(ask("a", "1"), b"nonsense", b"{}"), SETTINGS)
    assert [(bad.line, str(bad.error)) for bad in index.bad_lines()] == [
        (2, "line 2 is no record: nonsense"),
        (3, "line 3 is no record: {}"),
    ]


def test_an_edited_line_is_reported_and_not_answered() -> None:
    questions = Lines(ask("a", "1"), ask("a", "2"))
    index = Index.build(questions, SETTINGS)
    questions.raw[0] = json.dumps(ask("a", "another")).encode()
    first, second = next(index.groups())
    assert isinstance(first, BadLine)
    assert str(first.error) == "line 1 was changed while the run went on"
    assert isinstance(second, Question)


@pytest.mark.parametrize("raw", [b"", b'{"video": "a", "q": []}'], ids=["bad", "fewer"])
def test_a_line_that_is_no_record_any_more_is_reported(raw: bytes) -> None:
    questions = Lines(ask("a", "1"))
    index = Index.build(questions, SETTINGS)
    questions.raw[0] = raw
    assert [type(entry) for entry in next(index.groups())] == [BadLine]


def test_a_bad_line_that_was_mended_meanwhile_is_reported() -> None:
    questions = Lines(b"nonsense")
    index = Index.build(questions, SETTINGS)
    questions.raw[0] = json.dumps(ask("a", "1")).encode()
    assert [str(bad.error) for bad in index.bad_lines()] == [
        "line 1 was changed while the run went on"
    ]


def scattered(count: int) -> Lines:
    chance = random.Random(5)
    entries: list[Any] = [ask(f"{chance.randrange(30)}", n, id=n) for n in range(count)]
    entries[::7] = [f"nonsense {n}".encode() for n in range(len(entries[::7]))]
    return Lines(*entries)


def test_shards_have_all_of_a_file_between_them() -> None:
    questions = scattered(300)
    shards = [Index.build(questions, SETTINGS, shard=(n, 4)) for n in (1, 2, 3, 4)]
    open_lines = [line for index in shards for group in asked(index) for line, _ in group]
    bad_lines = [bad.line for index in shards for bad in index.bad_lines()]
    assert sorted(open_lines + bad_lines) == list(range(1, 301))


def test_a_shard_counts_what_is_its_own() -> None:
    questions = scattered(300)
    shards = [Index.build(questions, SETTINGS, shard=(n, 4)) for n in (1, 2, 3, 4)]
    assert sum(index.total for index in shards) == 300


def test_no_clip_is_in_two_shards() -> None:
    questions = scattered(300)
    shards = [Index.build(questions, SETTINGS, shard=(n, 4)) for n in (1, 2, 3, 4)]
    assert sum(index.clips for index in shards) == 30


def test_any_answers_leave_what_a_count_by_hand_leaves() -> None:
    chance = random.Random(11)
    for _ in range(50):
        questions = Lines(*[ask(chance.choice("ab"), chance.choice("12")) for _ in range(12)])
        answered = chance.choices(digests(questions), k=chance.randrange(12))
        index = Index.build(questions, SETTINGS, done(*answered))
        left = Counter(digests(questions)) - Counter(answered)
        found = Counter(entry.digest for group in index.groups() for entry in group)
        assert found == left


def test_every_entry_comes_in_the_order_of_the_file() -> None:
    questions = Lines(ask("a", ["1", "2"]), b"nonsense", ask("a", "3"))
    found = [(offset, part, type(e)) for offset, part, e in every_entry(questions, SETTINGS)]
    assert found == [(0, 0, Question), (0, 1, Question), (100, 0, BadLine), (200, 0, Question)]


def test_digests_of_an_index_and_of_a_walk_agree() -> None:
    questions = Lines(ask("a", "1"), b"nonsense")
    index = Index.build(questions, SETTINGS)
    listed = [entry.digest for group in index.groups() for entry in group]
    listed += [bad.digest for bad in index.bad_lines()]
    assert list(map(digest_text, listed)) == list(map(digest_text, digests(questions)))


class Endless(Lines):
    """A hundred thousand questions that are nowhere until they are asked for."""

    def entries(self) -> Iterator[tuple[int, int, bytes]]:
        for number in range(100_000):
            yield number * 100, number + 1, self.read(number * 100)

    def read(self, offset: int) -> bytes:
        number = offset // 100
        return json.dumps(ask(f"{number % 1000}.mp4", f"question {number}")).encode()


@pytest.mark.slow
def test_a_record_takes_a_hundred_bytes_at_most() -> None:
    tracemalloc.start()
    try:
        Index.build(Endless(), SETTINGS)
        assert tracemalloc.get_traced_memory()[1] < 100 * 100_000
    finally:
        tracemalloc.stop()
