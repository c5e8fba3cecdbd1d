"""Read a file of questions: detect its layout and format, and parse each entry once."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, count, islice
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Self

from pandacli.batch.formats import FORMATS, INPUT_FORMATS
from pandacli.batch.readers.choices import unused_choices
from pandacli.batch.readers.conversations import count_turns, is_conversation, is_request
from pandacli.batch.readers.entries import (
    Entries,
    Entry,
    Source,
    checked_fields,
    json_array,
    json_lines,
    opened,
)
from pandacli.batch.readers.fields import QUESTION, id_in, is_scalar, names_in
from pandacli.batch.readers.tables import PARQUET_MAGIC, Table, parquet_rows
from pandacli.batch.readers.times import unused_times
from pandacli.batch.records import BadLine, RecordError, RecordStore
from pandacli.errors import ClipError, UsageError

_PARTNERS = (  # parts of the names of files of questions, and of their answers
    (re.compile(r"(?<![a-z])q(?![a-z])", re.IGNORECASE), "a"),
    (re.compile(r"question", re.IGNORECASE), "answer"),
)
_REFERENCES_HEAD = 1 << 16
_EXAMINED = 64  # entries, to recognize the format
_HEAD = 1 << 18
_MAX_NAMES = 10  # names of fields in a notice
_UNUSED = (
    "no choices can be read from {}: choices is a list of texts",
    "no times are read from {}: times are from and to, or start and end",
)
_LINES = (".jsonl", ".ndjson", ".jsonlines")
_HINT = 'a line of it is like {"video": "clip.mp4", "question": "..."}; see --format'
_MAX_OBJECT = 256 * 2**20  # bytes; a file that is one object is parsed in one piece
_YOUTUBE = re.compile(r"[?&]v=([\w-]+)")
_VIDEO_OF_MANY = "questions"  # field of an entry that is a video with its questions; Video-MME
_MULTIPLE_CHOICE = "mc_question"  # the Perception Test also has tasks with boxes and moments


class Questions:
    """The records of a file; a context manager that deletes their temporary file."""

    def __init__(
        self,
        name: str,
        layout: str,
        entries: Entries,
        references: Path | None = None,
        table: Table | None = None,  # of the entries
    ) -> None:
        self.name = name  # of the file, in messages
        self.format = layout  # one of `INPUT_FORMATS`
        self.in_pairs = layout == "consistency"  # whether an entry has two questions
        self.has_choices = False
        self.has_moments = False  # whether segments are asked for
        self.columns = table.columns if table else ()
        self.delimiter = table.delimiter if table else ","
        self.notices: list[str] = []  # what the first entries have that is not used
        self.records = RecordStore(name)  # all records and bad lines, in order
        try:
            self._read(entries, references)
        except BaseException:
            self.records.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.records.close()

    def _read(self, entries: Entries, references: Path | None) -> None:
        read = FORMATS[self.format].read
        assert read is not None, "checked by `read_questions`"
        join = _reference_join(references) if references else None
        unused: tuple[dict[str, None], dict[str, None]] = {}, {}  # names, in the order of _UNUSED
        has_turns = False
        for position, (line, fields) in enumerate(entries):
            if isinstance(fields, RecordError):
                self.records.append(BadLine(line, fields))
                continue
            if join:
                fields = join(fields, position)
            try:
                found = read(fields, line)
            except RecordError as error:
                error.fields = fields
                self.records.append(BadLine(line, error))
                continue
            self.in_pairs |= len(found) > 1
            for record in found:
                self.records.append(record)
                self.has_choices |= bool(record.choices)
                self.has_moments |= record.when
            for names, look in zip(unused, (unused_choices, unused_times), strict=True):
                if more := look(fields):
                    names.update(dict.fromkeys(more))
            if self.format == "jsonl" and not has_turns and is_conversation(fields):
                has_turns = count_turns(fields) > 1
        for names, sentence in zip(unused, _UNUSED, strict=True):
            if names:
                shown = ", ".join(map(repr, islice(names, _MAX_NAMES)))
                self.notices.append(sentence.format(shown + ", ..." * (len(names) > _MAX_NAMES)))
        if has_turns:
            self.notices.append("only the first question of each conversation is asked")


def read_questions(
    source: Path | BinaryIO,
    wanted: str = "auto",
    answers: Path | None = None,
    detected: Callable[[str, Path | None], None] = lambda *_: None,
) -> Questions:
    """Read a file of questions, or a stream, in one of `INPUT_FORMATS`, or in one it recognizes.

    `answers` is the file of reference answers for "qa", or of the answer to each id; None looks for
    one beside the questions of "qa". `detected` is called, before entries are parsed, with the
    format that "same" stands for in `--output-format`, and with that file.
    """
    if wanted not in ("auto", *INPUT_FORMATS):
        names = ", ".join(INPUT_FORMATS)
        raise UsageError(f"there is no format {wanted!r}", f"formats are {names}")
    with opened(source) as file:
        try:
            name, entries = _detected(file, wanted)
            table = entries if isinstance(entries, Table) else None
            fields, entries = _peeked(entries)
            if _VIDEO_OF_MANY in fields:
                fields, entries = _peeked(_each_question(entries))
            recognized = [each for each, row in FORMATS.items() if row.recognize(fields)]
            if name == "auto":  # the last that recognizes it, else our own
                name = [each for each in ("jsonl", *recognized) if FORMATS[each].read][-1]
            if name != "qa" and answers is not None and not _by_id(answers):
                hint = "others can have an object with an answer for each id"
                raise UsageError("a list of right answers goes with the format qa only", hint)
            if name == "qa" and answers is None and isinstance(source, Path):
                answers = find_references(source)
            shapes = [each for each in recognized if not FORMATS[each].read]
            detected(shapes[0] if shapes else name, answers)
            return Questions(file.name, name, entries, answers, table)
        except OSError as error:
            raise ClipError(f"{file.name} cannot be read: {error.strerror}") from error


def _peeked(entries: Entries) -> tuple[dict[str, Any], Entries]:
    """The fields of the first entry that has some, and all entries."""
    rest = iter(entries)
    first = list(islice(rest, _EXAMINED))
    fields = next((fields for _, fields in first if isinstance(fields, dict)), {})
    return fields, chain(first, rest)


def find_references(questions: Path) -> Path | None:
    """The file of answers beside a file of questions, by its name: test_a.json for test_q.json."""
    stem, suffix = questions.stem, questions.suffix
    if suffix.lower() == ".parquet":  # answers are read from JSON only
        return None
    for pattern, partner in _PARTNERS:
        for found in reversed(list(pattern.finditer(stem))):
            other = partner.capitalize() if found[0][0].isupper() else partner
            other = stem[: found.start()] + other + stem[found.end() :]
            answers = questions.with_name(other + suffix)
            if answers.is_file() and not _is_predicted(answers):
                return answers
    return None


def _is_predicted(answers: Path) -> bool:
    """Whether a model gave the answers, such as an earlier run."""
    head = b""
    with suppress(OSError), answers.open("rb") as file:  # reported when it is opened to be read
        head = file.read(_REFERENCES_HEAD)
    return b'"pred"' in head or b'"digest"' in head


def _reference_join(path: Path) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """A function that adds the fields of its reference to an entry with this position in the file.

    They are joined by `question_id`, or by position where ids are missing or repeat; answers of an
    object by any id.
    """
    answer_to = _by_id(path)
    references = []
    with opened(path) as source:
        is_array = source.head(_REFERENCES_HEAD).lstrip().startswith(b"[")
        for number, fields in (
            (json_array if is_array else json_lines)(source) if not answer_to else ()
        ):
            if isinstance(fields, RecordError):
                problem = f"entry {number}: {fields.message}"
                hint = 'it holds a list of objects like {"question_id": "1", "answer": "yes"}'
                raise ClipError(f"{source.name} is no file of answers: {problem}", hint)
            references.append(fields)
    ids = [str(fields.get("question_id")) for fields in references]
    has_ids = "None" not in ids and len(set(ids)) == len(ids)
    by_key = dict(zip(ids if has_ids else range(len(ids)), references, strict=True))

    def join(fields: dict[str, Any], position: int) -> dict[str, Any]:
        if answer_to:
            found = answer_to.get(str(id_in(fields)))
            return fields if found is None or "answer" in fields else fields | {"answer": found}
        key = str(fields.get("question_id")) if has_ids else position
        return fields | by_key.get(key, {}) | fields  # its own fields win, and come first

    return join


def _by_id(path: Path) -> dict[str, Any]:
    """The answers of one object with an id for each, as of EgoSchema; empty for other files."""
    with opened(path) as source:
        value = one_object(source)
    return value if "answer" not in value and all(map(is_scalar, value.values())) else {}


def _detected(source: Source, wanted: str) -> tuple[str, Entries]:
    """The format of a file, "auto" where that depends on its entries, and the entries."""
    head = source.head(_HEAD)
    begin = head.lstrip()
    suffix = PurePath(source.name).suffix.lower()
    may_be_lines = wanted == "jsonl" or suffix in _LINES  # of which any may be damaged
    read_whole = FORMATS[wanted].entries if wanted != "auto" else None
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ClipError(f"{source.name} is UTF-16", "save it as UTF-8")
    if head.startswith(PARQUET_MAGIC):
        return "auto" if read_whole else wanted, parquet_rows(source)
    if read_whole:
        return wanted, read_whole(source)
    if begin.startswith(b"[") and _is_array(begin, suffix):
        return wanted, json_array(source)
    if begin.startswith(b"{") and not may_be_lines and not _is_entry(begin.partition(b"\n")[0]):
        if by_video := _by_video(source):
            return "jsonl" if wanted == "auto" else wanted, by_video
        if suffix == ".json" and begin[1:].lstrip(b" \t\r").startswith(b"\n"):
            raise ClipError(f"{source.name} is one JSON object, not a list of questions", _HINT)
    if begin.startswith((b"[", b"{")):
        return wanted, json_lines(source)
    for name, row in FORMATS.items() if wanted == "auto" else ():
        if row.entries and row.detect(source):
            return name, row.entries(source)
    has_object = any(line.lstrip().startswith(b"{") for line in begin.split(b"\n"))
    if begin and wanted != "jsonl" and not has_object and (b"\0" in head or not may_be_lines):
        raise ClipError(f"{source.name} is not a file of questions", _HINT)
    return wanted, json_lines(source)


def _is_array(begin: bytes, suffix: str) -> bool:
    """Whether a bracket begins an array of entries; a damaged line can begin with one too."""
    first, *rest = [line for line in map(bytes.strip, begin.split(b"\n")) if line]
    objects = [isinstance(_parsed(line), dict) for line in rest[:2]]
    if all(objects) and (len(objects) == 2 or (objects and first != b"[" and first[-1:] != b",")):
        return False
    return suffix not in _LINES or begin[1:].lstrip()[:1] in (b"{", b"]", b"")


def _is_entry(line: bytes) -> bool:
    fields = _parsed(line)
    return isinstance(fields, dict) and bool(
        names_in(tuple(fields))
        or is_request(fields)
        or is_conversation(fields)
        or _VIDEO_OF_MANY in fields
    )


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def one_object(source: Source) -> dict[str, Any]:
    """A file that is one JSON object, parsed in one piece; empty where it is something else."""
    is_object = source.head(_HEAD).lstrip().startswith(b"{")
    raw = source.head(_MAX_OBJECT + 1) if is_object else b""
    value = _parsed(raw) if len(raw) <= _MAX_OBJECT else None
    return value if isinstance(value, dict) else {}


def _by_video(source: Source) -> list[Entry]:
    """The questions of one object with a key for each video; empty where it is something else."""
    value = one_object(source)
    if value.get(_VIDEO_OF_MANY):
        return [(1, checked_fields(value))]
    found: list[dict[str, Any]] = []
    for video, held in value.items():
        lists = [held]
        if isinstance(held, dict):
            lists = [[held], held.get(_MULTIPLE_CHOICE), *held.values()]
        questions = (list(filter(_is_question, e)) for e in lists if isinstance(e, list))
        found += [{"video": video} | question for question in next(filter(None, questions), [])]
    return [(number, checked_fields(fields)) for number, fields in enumerate(found, 1)]


def _each_question(entries: Entries) -> Iterator[Entry]:
    """The questions of entries that are a video with a list of them, numbered from 1."""
    numbers = count(1)
    for _, entry in entries:
        asked = entry.get(_VIDEO_OF_MANY) if isinstance(entry, dict) else None
        if isinstance(entry, RecordError) or not isinstance(asked, list):
            yield next(numbers), entry
            continue
        video = {name: value for name, value in entry.items() if name != _VIDEO_OF_MANY}
        if named := _YOUTUBE.search(str(video.get("url"))):  # what the files are named after
            video = {"videoID": named[1]} | video
        for each in asked:
            yield next(numbers), video | each if isinstance(each, dict) else checked_fields(each)


def _is_question(entry: Any) -> bool:
    wanted = {name.casefold() for name in QUESTION}
    fields = entry.items() if isinstance(entry, dict) else ()
    return any(name.casefold() in wanted and isinstance(value, str) for name, value in fields)
