"""Results as the scoring scripts for video question answering, and OpenAI's Batch API, have them.

The fields were taken from the scripts: `quantitative_evaluation/` of mbzuai-oryx/Video-ChatGPT and
`videollava/eval/video/` of PKU-YuanGroup/Video-LLaVA; those of responses from
https://platform.openai.com/docs/api-reference/batch/request-output
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TextIO

from pandacli.batch.readers.conversations import is_conversation, reference_answer
from pandacli.batch.readers.entries import MOST_BYTES
from pandacli.batch.records import Record
from pandacli.batch.writers import Line, Results, is_scalar, own_fields, record_id

_REFERENCE = ("answer", "A")
_LITERALS = (str, int, float)
_ESCAPED = re.compile("[\ud800-\udfff\x85\u2028\u2029]")  # and what may end a line


def as_array(entries: Callable[[Results], Iterator[Line]]) -> Callable[[Results, TextIO], None]:
    """A writer of entries as one JSON array."""

    def write(results: Results, out: TextIO) -> None:
        out.write("[")
        comma = "\n"
        for entry in entries(results):
            out.write(comma + json.dumps(entry))
            comma = ",\n"
        out.write("\n]\n")

    return write


def as_literals(entries: Callable[[Results], Iterator[Line]]) -> Callable[[Results, TextIO], None]:
    """A writer of entries as Python literals, one a line, without null, true and false.

    Unpaired surrogates are escaped, but no other character: Python does not join the pairs by which
    JSON escapes an emoji.
    """

    def write(results: Results, out: TextIO) -> None:
        for entry in entries(results):
            known = {name: value for name, value in entry.items() if type(value) in _LITERALS}
            text = json.dumps(known, ensure_ascii=False)
            out.write(_ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")

    return write


def has_keys(*keys: set[str], lines: bool = False) -> Callable[[BinaryIO], bool]:
    """A function that tells whether a file begins with an entry that has one of these sets of keys.

    Args:
        keys: The sets of keys.
        lines: Whether entries are written one a line; else as an array, which may be empty.
    """

    def check(file: BinaryIO) -> bool:
        first = file.readline(MOST_BYTES)
        if not lines:
            if first != b"[\n":
                return False
            first = file.readline(MOST_BYTES).rstrip(b",\n")
            if first == b"]":
                return True
        try:
            entry = json.loads(first)
        except (ValueError, RecursionError):
            return False
        return isinstance(entry, dict) and any(each <= entry.keys() for each in keys)

    return check


def qa_entries(results: Results) -> Iterator[Line]:
    """Entries of {"id", "video_name", "question", "Q", "answer", "A", "pred"}."""
    id_of, repeated = _unique_ids(results.records)
    if repeated:
        results.notices.append('the ids of the questions repeat: "id" is the video with the id')
    for record, answer in _referenced(results):
        yield (
            own_fields(record)
            | {"id": id_of(record), "video_name": _video_name(record)}
            | {"question": record.question, "Q": record.question}
            | _reference(record)
            | {"pred": answer}
        )


def generic_entries(results: Results) -> Iterator[Line]:
    """Entries of {"video_name", "Q", "A", "pred"}."""
    for record, answer in _referenced(results):
        entry = own_fields(record) | {"video_name": _video_name(record), "Q": record.question}
        reference = _reference(record)
        yield entry | ({"A": reference["A"]} if reference else {}) | {"pred": answer}


def pair_entries(results: Results) -> Iterator[Line]:
    """Entries of {"video_name", "Q1", "Q2", "A", "pred1", "pred2"}, where both are answered."""
    without = 0
    for record, answers in results.answered_pairs():
        without += len(answers) * (not _reference(record))
        predicted = {f"pred{number}": answer for number, answer in enumerate(answers, 1)}
        yield own_fields(record) | {"video_name": _video_name(record)} | predicted
    _add_notice(results, without)


def qa_or_pair_entries(results: Results) -> Iterator[Line]:
    """Pairs where the questions are in pairs."""
    return (pair_entries if results.questions.in_pairs else qa_entries)(results)


def _referenced(results: Results) -> Iterator[tuple[Record, str]]:
    """The answers; in the end a notice tells how many have no reference answer."""
    without = 0
    for record, answer in results.answers():
        without += not _reference(record)
        yield record, answer
    _add_notice(results, without)


def _add_notice(results: Results, without: int) -> None:
    if without:
        results.notices.append(
            f"{without:,} answers have no right answer beside them, which scoring scripts need"
            f' ("answer" or "A" in the questions, or --answers FILE)'
        )


def _unique_ids(
    records: Callable[[], Iterable[Record]],
) -> tuple[Callable[[Record], str], bool]:
    """The function that gives unique ids that can be file names, and whether ids repeat.

    NExT-QA counts ids within a video: where ids repeat, each is made of the video and the id, and
    where even that repeats, the later ones are numbered.

    Args:
        records: Returns all records of the file, so that the ids of a shard are those of the whole.
    """
    seen: set[str] = set()
    for record in records():
        if (name := _plain_id(record)) in seen:
            break
        seen.add(name)
    else:
        return _plain_id, False
    taken: Counter[str] = Counter()
    numbered: dict[tuple[int, int], str] = {}
    for record in records():
        name = wanted = _id_with_video(record)
        while name in taken:
            taken[wanted] += 1
            name = f"{wanted}_{taken[wanted]}"
        taken[name] = 1
        if name != wanted:
            numbered[record.line, record.part] = name
    return (lambda record: numbered.get((record.line, record.part)) or _id_with_video(record)), True


def _plain_id(record: Record) -> str:
    return _file_name(record_id(record))


def _id_with_video(record: Record) -> str:
    return _file_name(f"{_video_name(record)}_{record_id(record)}")


def _file_name(text: str) -> str:
    return text.replace("/", "_").replace("\0", "_")


def _video_name(record: Record) -> str:
    """The `video_name` of the entry, else the stem of the file: scripts name files after it."""
    name = record.fields.get("video_name")
    return name if isinstance(name, str) and name else PurePosixPath(record.video).stem


def _reference(record: Record) -> dict[str, Any]:
    """The reference answer under both names that scripts use; empty where there is none."""
    fields = record.fields
    found = next((fields[name] for name in _REFERENCE if is_scalar(fields.get(name))), None)
    if found is None and is_conversation(fields):
        found = reference_answer(fields)
    return {} if found is None else {"answer": found, "A": found}


def is_responses(file: BinaryIO) -> bool:
    """Whether a file begins with a response."""
    return has_keys({"id", "custom_id", "response", "error"}, lines=True)(file)


def write_responses(results: Results, out: TextIO) -> None:
    """Write a response a line, or an error."""
    for record, line in results:
        out.write(json.dumps(_response(record, line)) + "\n")


def _response(record: Record | None, line: Line) -> dict[str, Any]:
    digest = line["digest"]
    written = line.get("custom_id") if record is None else record_id(record)
    response: dict[str, Any] = {
        "id": f"batch_req_{digest}",
        "custom_id": f"line-{line['line']}" if written is None else str(written),
    }
    if "error" in line:
        error = {"code": line["error"]["kind"], "message": line["error"]["message"]}
        return response | {"response": None, "error": error}
    body = {"status_code": 200, "request_id": f"req_{digest}", "body": _completion(digest, line)}
    return response | {"response": body, "error": None}


def _completion(digest: str, line: Line) -> dict[str, Any]:
    """A chat completion.

    Questions share the prompt, whose tokens are not counted, and there is no time in it, so that
    the same answers make the same file.
    """
    message = {"role": "assistant", "content": line["answer"], "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None}
    tokens = line["tokens"]
    return {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": 0,
        "model": line["model"],
        "choices": [choice | {"finish_reason": line["finish_reason"]}],
        "usage": {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens},
    }
