"""A file of questions, opened: its entries in order, and each of them again by its place."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from pandacli.batch.readers import tables as parquet
from pandacli.batch.readers.arrays import elements
from pandacli.batch.readers.by_video import questions_by_video
from pandacli.batch.readers.conversations import first_turn, is_conversation, record_of, turns
from pandacli.batch.readers.detection import Guess, guess
from pandacli.batch.readers.fields import Names, choice_fields, names_in, records_of
from pandacli.batch.readers.json_parsing import MOST_BYTES, TOO_LONG, parse
from pandacli.batch.readers.references import RightAnswers, partner
from pandacli.batch.readers.source import Copy, Entry, Source, copied, opened
from pandacli.batch.readers.tables import as_entry, checked_header, rows
from pandacli.batch.records import Record, RecordError
from pandacli.errors import UsageError

_NAMES = {
    "jsonl": Names("video", ("question",)),
    "qa": Names("video_name", ("question",)),
    "generic": Names("video_name", ("Q",)),
    "consistency": Names("video_name", ("Q1", "Q2")),
}

_LOOKED_AT = 64  # entries, for what is not used of them

FORMATS = (*_NAMES, "csv", "openai")
"""The formats that are read:

    jsonl         ours: {"video", "question", ...}; also the first turn of a conversation, see
                  `conversations`
    qa            MSVD-QA, MSRVTT-QA, TGIF-QA and ActivityNet-QA as Video-ChatGPT lays them out:
                  {"video_name", "question", "question_id"}, the right answers in another file
    generic       Video-ChatGPT's generative benchmark: {"video_name", "Q", "A"}
    consistency   two questions an entry: {"video_name", "Q1", "Q2", "A"}
    csv           a table with a header; its columns are called as the fields of the others
    openai        requests of OpenAI's Batch API, with a video_url that is a local path

One JSON object a line, or (all but csv) a JSON array of them, or Parquet; where no format is named,
also one object with the questions of each video.
"""


class Questions:
    """A file of questions; a context manager that lets go of it.

    Arrays, tables and what comes through a pipe are copied once to a temporary file of one entry a
    line; other files are read in place.

    Attributes:
        format: One of `FORMATS`.
        columns: The columns of a table, as they are written there; else empty.
        delimiter: What keeps the cells of a table apart.
        right_answers: The file of right answers that was joined to them; None where there is none.
    """

    def __init__(
        self,
        source: Source,
        format: str,  # noqa: A002 (what the option is called)
        *,
        numbered: bool = False,
        names: Names | None = None,
        columns: tuple[str, ...] = (),
        delimiter: str = ",",
        right_answers: Path | None = None,
    ) -> None:
        self.format = format
        self.columns = columns
        self.delimiter = delimiter
        self.right_answers = right_answers
        self._source = source
        self._numbered = numbered
        self._names = names or _NAMES.get(format)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._source.close()

    @property
    def name(self) -> str:
        """What the file is called in messages."""
        return self._source.name

    def notices(self) -> list[str]:
        """What the first entries have that is not used, a sentence each."""
        choices: dict[str, None] = {}
        later = False
        for _, _, raw in islice(self.entries(), _LOOKED_AT):
            try:
                fields = parse(raw)
            except RecordError:
                continue
            choices |= dict.fromkeys(choice_fields(fields))
            later |= self.format == "jsonl" and is_conversation(fields) and turns(fields) > 1
        told = []
        if choices:
            named = ", ".join(repr(name) for name in choices)
            told.append(f"the model is not shown the choices in {named}: questions are asked alone")
        if later:
            told.append("only the first question of each conversation is asked")
        return told

    @property
    def in_pairs(self) -> bool:
        """Whether an entry has two questions."""
        return self._names is not None and len(self._names.questions) > 1

    def entries(self) -> Iterator[Entry]:
        """The entries in the order of the file, blank lines left out.

        Yields:
            Where an entry begins, which `read` takes; its line, or its number in an array, from
            1; and what it holds, which `records` takes.

        Raises:
            ClipError: The disk fails.
        """
        if not self._numbered:
            yield from self._source.lines()
            return
        for offset, _, raw in self._source.lines():
            number, _, entry = raw.partition(b" ")
            yield offset, int(number), entry

    def read(self, offset: int) -> bytes:
        """An entry again.

        Args:
            offset: Where it begins.

        Raises:
            ClipError: The disk fails.
        """
        raw = self._source.line(offset)
        return raw.partition(b" ")[2] if self._numbered else raw

    def records(self, raw: bytes, line: int) -> list[Record]:
        """The questions of an entry: two for consistency, else one.

        Args:
            raw: What the entry holds.
            line: Where it stands.

        Raises:
            RecordError: It is no record; the message is one sentence about it, without the line.
        """
        if self._numbered and raw.startswith(b'"'):  # what was found wrong when it was copied
            raise RecordError(json.loads(raw))
        fields = parse(raw)
        try:
            if self._names is None:
                return [record_of(fields, line)]
            if self.format == "jsonl" and is_conversation(fields):
                return [first_turn(fields, line)]
            return records_of(fields, line, self._names_in(fields))
        except RecordError as error:
            error.fields = fields
            raise

    def _names_in(self, fields: dict[str, Any]) -> Names:
        names = self._names
        assert names is not None, "requests have no names"
        if self.format == "csv" or all(name in fields for name in (names.video, *names.questions)):
            return names
        found = names_in(fields)
        return found if found and len(found.questions) == len(names.questions) else names


def open_questions(
    source: Path | BinaryIO,
    format: str = "auto",  # noqa: A002 (what the option is called)
    answers: Path | None = None,
) -> Questions:
    """Open a file of questions.

    Args:
        source: The file, or a stream, which is read to its end.
        format: One of `FORMATS`; "auto" goes by how the file begins.
        answers: For "qa", the file of right answers; None looks for it beside the questions, by
            its name, and does without where it is not there.

    Raises:
        UsageError: There is no such format, or it has no file of answers.
        ClipError: The file cannot be used.
        PandaError: There is no room for a copy that is needed.
    """
    if format not in ("auto", *FORMATS):
        raise UsageError(f"there is no format {format!r}", f"formats are {', '.join(FORMATS)}")
    held = opened(source) if isinstance(source, Path) else copied(source, "standard input")
    try:
        kind = guess(held, format)
        if answers is not None and kind.format != "qa":
            raise UsageError("a file of right answers goes with the format qa only")
        if kind.format == "qa" and answers is None and isinstance(source, Path):
            answers = partner(source)
        if kind.layout == "lines" and answers is None:
            return Questions(held, kind.format)
        with held:
            if kind.layout == "table":
                return _from_table(held)
            raws = _numbered(held) if kind.layout == "lines" else enumerate(_unlined(held, kind), 1)
            right = RightAnswers(answers) if answers else None
            joined = _copy(raws, held.name, right)
            return Questions(joined, kind.format, numbered=True, right_answers=answers)
    except BaseException:
        held.close()
        raise


def _from_table(source: Source) -> Questions:
    header = checked_header(source)
    entries = ((line, as_entry(row)) for line, row in rows(source, header))
    return Questions(
        _copy(entries, source.name),
        "csv",
        numbered=True,
        names=header.names,
        columns=tuple(dict.fromkeys(header.cells)),
        delimiter=header.delimiter,
    )


def _numbered(source: Source) -> Iterator[tuple[int, bytes]]:
    for _, line, raw in source.lines():
        yield line, json.dumps(TOO_LONG).encode() if len(raw) > MOST_BYTES else raw


def _unlined(source: Source, kind: Guess) -> Iterator[bytes]:
    """The entries of a file that does not hold one a line."""
    if kind.layout == "parquet":
        return parquet.entries(source)
    if kind.layout == "by video":
        return (json.dumps(entry).encode() for entry in questions_by_video(source))
    return _array(source)


def _array(source: Source) -> Iterator[bytes]:
    for raw in elements(source):
        if raw.startswith(b'"'):  # in the copy, a string is a complaint
            yield json.dumps("not a JSON object but a string").encode()
        else:
            yield raw


def _copy(
    entries: Iterator[tuple[int, bytes]], name: str, right: RightAnswers | None = None
) -> Source:
    """The entries with their numbers, one a line, in a file that is gone when it is closed."""
    copy = Copy(name)
    try:
        for place, (number, raw) in enumerate(entries):
            entry = _with_answer(raw, place, right) if right else raw
            if len(entry) > MOST_BYTES:
                entry = json.dumps(TOO_LONG).encode()
            copy.write(b"%d %s\n" % (number, entry))
        return copy.finished()
    except BaseException:
        copy.discard()
        raise


def _with_answer(raw: bytes, place: int, right: RightAnswers) -> bytes:
    try:
        return json.dumps(right.joined(parse(raw), place)).encode()
    except RecordError:  # told when it is read again
        return raw
