"""Which questions are open, and where they stand: a file of any length in a few numbers a record.

A million records are 32 MB. The records themselves are read again when their clip has its turn.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pandacli.batch.records import (
    Record,
    RecordError,
    belongs_to,
    clip_digest,
    line_digest,
    record_hash,
)


class Questions(Protocol):
    """A file of questions: its entries in order, and each of them again from where it stands."""

    def entries(self) -> Iterator[tuple[int, int, bytes]]:
        """The offset, the line and the bytes of each entry."""

    def read(self, offset: int) -> bytes:
        """The bytes of the entry at an offset."""

    def records(self, raw: bytes, line: int) -> list[Record]:
        """The records of an entry; raises RecordError if it is none."""


@dataclass(frozen=True)
class Question:
    """A record that is to be answered.

    Attributes:
        record: The record.
        digest: Its digest, with the settings of the run.
    """

    record: Record
    digest: int


@dataclass(frozen=True)
class BadLine:
    """A line that is no record.

    Attributes:
        line: Where it stands in the file, from 1.
        digest: The digest of its bytes, or of the record that once stood there.
        error: What is wrong with it.
    """

    line: int
    digest: int
    error: RecordError


class Index:
    """The open questions of a file, by their clips.

    Attributes:
        total: Records of the file, or of the shard; bad lines included.
        earlier: Of these, those that have been answered already.
        clips: Clips with open questions.
    """

    def __init__(self, questions: Questions, settings: Mapping[str, Any]) -> None:
        self._questions = questions
        self._hash = record_hash(settings)
        self._bad_lines = _Places()
        self._starts: NDArray[np.int64] = np.zeros(1, np.int64)  # of each clip, and the end
        self.total = self.earlier = self.clips = 0

    @classmethod
    def build(
        cls,
        questions: Questions,
        settings: Mapping[str, Any],
        done: NDArray[np.uint64] | None = None,
        shard: tuple[int, int] = (1, 1),
    ) -> Self:
        """Go through a file once.

        Args:
            questions: The file.
            settings: All that an answer depends on besides the record, as a JSON object.
            done: The digests that have an answer, sorted; as often as they have one.
            shard: Which part of the clips it is about, from 1, and of how many.
        """
        index = cls(questions, settings)
        found = _Places()
        for offset, part, entry in every_entry(questions, settings):
            if isinstance(entry, BadLine):
                places, line, clip = index._bad_lines, entry.line, entry.digest
            else:
                places, line, clip = found, entry.record.line, clip_digest(entry.record)
            if belongs_to(clip, *shard):
                places.add(offset, line, part, clip, entry.digest)
        index._arrange(found, np.asarray([] if done is None else done, np.uint64))
        return index

    def bad_lines(self) -> Iterator[BadLine]:
        """The lines that are no records, in their order, read again."""
        bad = self._bad_lines
        for offset, line, digest in zip(bad.offset, bad.line, bad.digest, strict=True):
            try:
                _hashed(self._questions, self._hash, self._questions.read(offset), line)
                error = _changed(line)
            except RecordError as found:
                error = found
            yield BadLine(line, digest, error)

    def groups(self) -> "Iterator[Group]":
        """The clips, in the order of their first open questions in the file."""
        for begin, end in zip(self._starts[:-1].tolist(), self._starts[1:].tolist(), strict=True):
            yield Group(self, begin, end)

    def reread(self, begin: int, end: int) -> Iterator[Question | BadLine]:
        """Open questions by their numbers, in the order of the groups.

        A question that is not the indexed one any more comes as a bad line.
        """
        entry: tuple[int, list[Question]] = (-1, [])
        for number in range(begin, end):
            offset, line = int(self._offset[number]), int(self._line[number])
            part, digest = int(self._part[number]), int(self._digest[number])
            if entry[0] != offset:
                entry = offset, self._entry(offset, line)
            question = entry[1][part] if part < len(entry[1]) else None
            if question is not None and question.digest == digest:
                yield question
            else:
                yield BadLine(line, digest, _changed(line))

    def _entry(self, offset: int, line: int) -> list[Question]:
        """An entry, read again; empty if it is none any more."""
        try:
            return _hashed(self._questions, self._hash, self._questions.read(offset), line)
        except RecordError:
            return []

    def _arrange(self, found: "_Places", done: NDArray[np.uint64]) -> None:
        digest = np.asarray(found.digest, np.uint64)
        opened = np.flatnonzero(~_answered(digest, done))
        clips = np.asarray(found.clip, np.uint64)[opened]
        # each clip by the place of its first question, and the questions of a clip in order
        _, first, of_clip = np.unique(clips, return_index=True, return_inverse=True)
        opened = opened[np.argsort(first[of_clip], kind="stable")]
        counts = np.unique(first[of_clip], return_counts=True)[1]
        self._starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        self._offset = np.asarray(found.offset, np.uint64)[opened]
        self._line = np.asarray(found.line, np.uint32)[opened]
        self._part = np.asarray(found.part, np.uint32)[opened]
        self._digest = digest[opened]
        self.total = len(digest) + len(self._bad_lines.offset)
        self.earlier = len(digest) - len(opened)
        self.clips = len(first)


@dataclass(frozen=True)
class Group:
    """The open questions of one clip, in the order of the file.

    Iterating gives a Question for each, or a BadLine where the file was changed since; they are
    read one at a time, as often as asked for.
    """

    _index: Index
    _begin: int
    _end: int

    def __len__(self) -> int:
        """How many there are."""
        return self._end - self._begin

    def __iter__(self) -> Iterator[Question | BadLine]:
        """The questions."""
        return self._index.reread(self._begin, self._end)


def every_entry(
    questions: Questions, settings: Mapping[str, Any]
) -> Iterator[tuple[int, int, Question | BadLine]]:
    """All of a file in its order, answered or not.

    Returns:
        Of each record, and of each line that is none, the offset of its entry, which record of
        the entry it is, and the record with its digest.
    """
    hashed = record_hash(settings)
    for offset, line, raw in questions.entries():
        try:
            entry = _hashed(questions, hashed, raw, line)
        except RecordError as error:
            yield offset, 0, BadLine(line, line_digest(raw), error)
            continue
        for part, question in enumerate(entry):
            yield offset, part, question


class _Places:
    """Where records stand, in columns of plain numbers."""

    def __init__(self) -> None:
        self.offset = array("Q")
        self.line = array("I")
        self.part = array("I")
        self.clip = array("Q")
        self.digest = array("Q")

    def add(self, offset: int, line: int, part: int, clip: int, digest: int) -> None:
        self.offset.append(offset)
        self.line.append(line)
        self.part.append(part)
        self.clip.append(clip)
        self.digest.append(digest)


def _hashed(
    questions: Questions, hashed: Callable[[Record], int], raw: bytes, line: int
) -> list[Question]:
    return [Question(record, hashed(record)) for record in questions.records(raw, line)]


def _answered(digests: NDArray[np.uint64], done: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Of equal digests, the first so many as have an answer."""
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    nth = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    answers = np.searchsorted(done, ordered, "right") - np.searchsorted(done, ordered)
    answered = np.zeros(len(digests), np.bool_)
    answered[order] = nth < answers
    return answered


def _changed(line: int) -> RecordError:
    return RecordError(f"line {line} was changed while the run went on", "run it again")
