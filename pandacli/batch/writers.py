"""Results in the formats of `pandacli.batch.formats`.

The fields of benchmarks were taken from their scoring scripts: `quantitative_evaluation/` of
mbzuai-oryx/Video-ChatGPT and `videollava/eval/video/` of PKU-YuanGroup/Video-LLaVA; those of
responses from https://platform.openai.com/docs/api-reference/batch/request-output
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from pandacli.batch.readers.choices import find_choices
from pandacli.batch.readers.conversations import is_conversation, is_request, reference_answer
from pandacli.batch.readers.entries import MOST_BYTES
from pandacli.batch.readers.fields import id_in, is_scalar
from pandacli.batch.readers.tables import DELIMITERS
from pandacli.batch.records import BadLine, Record
from pandacli.batch.results import Line

if TYPE_CHECKING:
    from pandacli.batch.readers.questions import Questions

_REFERENCE = ("answer", "A")
_ESCAPED = re.compile("[\ud800-\udfff\x85\u2028\u2029]")  # and what may end a line
_COLUMNS = ("answer", "model", "finish_reason", "tokens", "seconds", "error")


@dataclass
class Results:
    """Each record of a file (None for a bad line) with its line of the results file, if any."""

    questions: "Questions"
    digests: Sequence[int]  # of all records and bad lines
    find: Callable[[int], Line | None]  # the line with a digest
    delimiter: str  # between the cells of a table
    notices: list[str] = field(default_factory=list)  # sentences for a user who scores the answers

    def __iter__(self) -> Iterator[tuple[Record | None, Line]]:
        for record, digest in zip(self.questions.records, self.digests, strict=True):
            if (line := self.find(digest)) is not None:
                yield None if isinstance(record, BadLine) else record, line

    def records(self) -> Iterator[Record]:
        return (record for record in self.questions.records if isinstance(record, Record))

    def answers(self) -> Iterator[tuple[Record, list[str]]]:
        """The records that have an answer, and the answer in a list."""
        for record, line in self:
            if record is not None and "error" not in line:
                yield record, [line["answer"]]

    def pairs(self) -> Iterator[tuple[Record, list[str]]]:
        """The first record of each entry of which all questions have an answer, and these."""
        for _, group in groupby(self.answers(), lambda answer: answer[0].line):
            first, *rest = group
            if 1 + len(rest) == first[0].parts:
                yield first[0], [answer for _, [answer] in (first, *rest)]


_ToEntries = Callable[[Results], Iterator[Line]]


def as_array(entries: _ToEntries, *keys: set[str]) -> dict[str, Any]:
    """The fields of a `Format` that write entries with these keys as one JSON array."""

    def write(results: Results, out: TextIO) -> None:
        out.write("[")
        for number, entry in enumerate(entries(results)):
            out.write((",\n" if number else "\n") + json.dumps(entry))
        out.write("\n]\n")

    def is_output(file: BinaryIO) -> bool:
        if file.readline(MOST_BYTES) != b"[\n":
            return False
        first = file.readline(MOST_BYTES).rstrip(b",\n")
        return first == b"]" or has_keys(*keys)(io.BytesIO(first))

    return {"write": write, "is_output": is_output, "extension": ".json"}


def as_literals(entries: _ToEntries, *keys: set[str]) -> dict[str, Any]:
    """The fields that write entries as Python literals, one a line, without null, true and false.

    Of characters, only unpaired surrogates are escaped: Python does not join JSON's paired ones.
    """

    def write(results: Results, out: TextIO) -> None:
        for entry in entries(results):
            known = {name: value for name, value in entry.items() if _is_literal(value)}
            text = json.dumps(known, ensure_ascii=False)
            out.write(_ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")

    return {"write": write, "is_output": has_keys(*keys)}


def _is_literal(value: Any) -> bool:
    texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return texts or type(value) in (str, int, float)


def has_keys(*keys: set[str]) -> Callable[[BinaryIO], bool]:
    """A check that the first line of a file is an object that has one of these sets of keys."""

    def check(file: BinaryIO) -> bool:
        try:
            entry = json.loads(file.readline(MOST_BYTES))
        except (ValueError, RecursionError):
            return False
        return isinstance(entry, dict) and any(each <= entry.keys() for each in keys)

    return check


def qa_entries(results: Results) -> Iterator[Line]:
    """Entries of {"id", "video_name", "question", "Q", "answer", "A", "pred"}."""
    id_of = unique_ids(results)
    for record, [answer], reference in _referenced(results, results.answers()):
        ours = {"id": id_of(record), "video_name": video_name(record)}
        asked = {"question": record.question, "Q": record.question}
        yield _own_fields(record) | ours | asked | reference | {"pred": answer}


def generic_entries(results: Results) -> Iterator[Line]:
    """Entries of {"video_name", "Q", "A", "pred"}."""
    for record, [answer], reference in _referenced(results, results.answers()):
        right = {"A": reference["A"]} if reference else {}
        asked = {"video_name": video_name(record), "Q": record.question}
        yield _own_fields(record) | asked | right | {"pred": answer}


def pair_entries(results: Results) -> Iterator[Line]:
    """Entries of {"video_name", "Q1", "Q2", "A", "pred1", "pred2"}, where both are answered."""
    for record, answers, _ in _referenced(results, results.pairs()):
        predicted = {f"pred{number}": answer for number, answer in enumerate(answers, 1)}
        yield _own_fields(record) | {"video_name": video_name(record)} | predicted


def qa_or_pair_entries(results: Results) -> Iterator[Line]:
    return (pair_entries if results.questions.in_pairs else qa_entries)(results)


def write_responses(results: Results, out: TextIO) -> None:
    """Write a response of OpenAI's Batch API a line, or an error; without times, to be equal."""
    for record, line in results:
        digest, response, error = line["digest"], None, None
        name = line.get("custom_id") if record is None else _record_id(record)
        if "error" in line:
            error = {"code": line["error"]["kind"], "message": line["error"]["message"]}
        else:
            tokens = line["tokens"]
            message = {"role": "assistant", "content": line["answer"], "refusal": None}
            choice = {"index": 0, "message": message, "logprobs": None}
            body = {
                **{"id": f"chatcmpl-{digest}", "object": "chat.completion", "created": 0},
                "model": line["model"],
                "choices": [choice | {"finish_reason": line["finish_reason"]}],
                # questions share the prompt, whose tokens are not counted
                "usage": {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens},
            }
            response = {"status_code": 200, "request_id": f"req_{digest}", "body": body}
        name = f"line-{line['line']}" if name is None else str(name)
        entry = {"id": f"batch_req_{digest}", "custom_id": name}
        out.write(json.dumps(entry | {"response": response, "error": error}) + "\n")


def write_table(results: Results, out: TextIO) -> None:
    """Write a header and a row for each result; a result column whose name is taken is renamed."""
    names = results.questions.columns or (n for r in results.records() for n in _asked(r))
    pair = ("part", "question") if results.questions.in_pairs else ()
    columns = list(dict.fromkeys([*names, *pair]))
    header = list(columns)
    for name in _COLUMNS:
        other = "pred" if name == "answer" else f"panda_{name}"
        free = chain([name, other], (f"panda_{name}_{number}" for number in count(1)))
        header.append(next(each for each in free if each not in header))

    style: dict[str, Any] = {"delimiter": results.delimiter, "lineterminator": "\n"}
    plain, quoted = csv.writer(out, **style), csv.writer(out, **style, quoting=csv.QUOTE_ALL)

    def write_row(values: list[Any]) -> None:
        texts = (v if isinstance(v, str) else "" if v is None else json.dumps(v) for v in values)
        # JSON can hold unpaired surrogates, which cannot be written
        cells = [text.encode("utf-8", "backslashreplace").decode() for text in texts]
        # a lone carriage return would end a row, but is not quoted on its own by every Python
        (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)

    write_row(header)
    for record, line in results:
        fields = line | line.get("given", {}) if record is None else _asked(record)
        if "error" in line:
            result = [""] * 5 + [f"{line['error']['kind']}: {line['error']['message']}"]
        else:
            result = [line[name] for name in _COLUMNS[:-1]] + [""]
        write_row([fields.get(name) for name in columns] + result)


def is_result_table(file: BinaryIO) -> bool:
    """Whether a file begins with a header whose last columns are those of the results."""
    head = file.readline(MOST_BYTES) + file.readline(MOST_BYTES)
    for delimiter in DELIMITERS:
        try:
            header = next(csv.reader(io.StringIO(head.decode(), newline=""), delimiter=delimiter))
        except (UnicodeDecodeError, csv.Error, StopIteration):
            continue
        last = [re.sub(r"^panda_|(?<=.)_\d+$", "", cell) for cell in header[-len(_COLUMNS) :]]
        if last[:1] == ["pred"]:
            last[0] = "answer"
        if tuple(last) == _COLUMNS:
            return True
    return False


def _asked(record: Record) -> dict[str, Any]:
    """The fields of a record as columns of a table."""
    fields = _own_fields(record)
    if record.parts > 1:
        return fields | {"part": record.part, "question": record.question}
    asked = {"video": record.video, "question": record.question}
    return fields | asked if is_request(record.fields) else fields


def _referenced(
    results: Results, answers: Iterable[tuple[Record, list[str]]]
) -> Iterator[tuple[Record, list[str], dict[str, Any]]]:
    """Answers with the reference under both names that scripts use; those without are counted."""
    without = 0
    for record, answer in answers:
        fields = record.fields
        found = next((fields[name] for name in _REFERENCE if is_scalar(fields.get(name))), None)
        if found is None and is_conversation(fields):
            found = reference_answer(fields)
        if record.choices and (read := find_choices(fields)) and read.correct is not None:
            found = read.texts[read.correct]  # which data sets give by its index or letter
        without += len(answer) * (found is None)
        yield record, answer, {} if found is None else {"answer": found, "A": found}
    if without:
        results.notices.append(
            f"{without:,} answers have no right answer beside them, which scoring scripts need"
            f' ("answer" or "A" in the questions, or --answers FILE)'
        )


def ids_repeat(records: Iterable[Record]) -> bool:
    """Whether two questions have the same id."""
    found = Counter(map(_record_id, records))
    return len(found) < found.total()


def unique_ids(results: Results, *, by_video: bool = False) -> Callable[[Record], str]:
    """The function that gives unique ids that can be file names; a shard has those of the whole.

    NExT-QA counts ids within a video: ids that repeat get it as a prefix, and then a number.
    """
    numbered: dict[tuple[int, int], str] = {}
    prefixed = by_video

    def id_of(record: Record) -> str:
        name = f"{video_name(record)}_" * prefixed + _record_id(record)
        return numbered.get((record.line, record.part), re.sub("[/\0]", "_", name))

    plain = Counter(map(id_of, results.records()))
    if len(plain) == plain.total():
        return id_of
    prefixed = True
    results.notices.append('the ids of the questions repeat: "id" is the video with the id')
    taken: Counter[str] = Counter()
    for record in results.records():
        name = wanted = id_of(record)
        while name in taken:
            taken[wanted] += 1
            name = f"{wanted}_{taken[wanted]}"
        taken[name] = 1
        if name != wanted:
            numbered[record.line, record.part] = name
    return id_of


def _record_id(record: Record) -> str:
    """The id of a record, under any known name in any case; else its line."""
    found = record.line if (held := id_in(record.fields)) is None else held
    return f"{found}_{record.part + 1}" if record.parts > 1 else str(found)


def video_name(record: Record) -> str:
    """The `video_name` of the entry, else the stem of the file: scripts name files after it."""
    name = record.fields.get("video_name")
    return name if isinstance(name, str) and name else PurePosixPath(record.video).stem


def _own_fields(record: Record) -> dict[str, Any]:
    """The fields of a record that are written again; of a request, its id only."""
    if not is_request(record.fields):
        return record.fields
    return {k: v for k, v in record.fields.items() if k not in ("method", "url", "body")}
