"""The open records of a file, grouped by clip."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pandacli.batch.records import (
    BadLine,
    Question,
    Record,
    RecordStore,
    belongs_to,
    clip_digest,
    record_hash,
)


class Index:
    """The open records of a file, grouped by clip; a few numbers a record in memory.

    Args:
        records: All records and bad lines of the file.
        settings: Everything that an answer depends on besides the record, as a JSON object.
        done: The digests that are answered, each as often as it is.
        shard: The number of the shard of clips, from 1, and the number of shards.

    Attributes:
        digests: The digest of each record and bad line, in the order of the file.
        total: Records of the shard, bad lines included.
        earlier: Of these, those that are answered already.
        clips: Clips with open records.
    """

    def __init__(
        self,
        records: RecordStore,
        settings: Mapping[str, Any],
        done: Iterable[int] = (),
        shard: tuple[int, int] = (1, 1),
    ) -> None:
        self._records = records
        self._bad = array("Q")
        self._by_clip: dict[int, array[int]] = {}  # in the order of their first open record
        self.digests = array("Q")
        self.total = self.earlier = 0
        digest_of, answers = record_hash(settings), Counter(map(int, done))
        for number, record in enumerate(records):
            if isinstance(record, BadLine):
                digest = clip = record.digest
            else:
                digest, clip = digest_of(record), clip_digest(record)
            self.digests.append(digest)
            if not belongs_to(clip, *shard):
                continue
            self.total += 1
            if isinstance(record, BadLine):
                self._bad.append(number)
            elif answers[digest] > 0:  # of equal records, the first are the answered ones
                answers[digest] -= 1
                self.earlier += 1
            else:
                self._by_clip.setdefault(clip, array("Q")).append(number)
        self.clips = len(self._by_clip)

    def bad_lines(self) -> Iterator[BadLine]:
        """The bad lines in their order."""
        for number in self._bad:
            bad = self._records[number]
            assert isinstance(bad, BadLine)
            yield bad

    def groups(self) -> "Iterator[Group]":
        """The clips, in the order of their first open records."""
        for numbers in self._by_clip.values():
            yield Group(self._records, self.digests, numbers)


@dataclass(frozen=True)
class Group:
    """The open records of one clip in the order of the file, read back as they are iterated."""

    _records: RecordStore
    _digests: Sequence[int]
    _numbers: Sequence[int]

    def __len__(self) -> int:
        """The number of records."""
        return len(self._numbers)

    def __iter__(self) -> Iterator[Question]:
        """The records with their digests."""
        for number in self._numbers:
            record = self._records[number]
            assert isinstance(record, Record)
            yield Question(record, self._digests[number])
