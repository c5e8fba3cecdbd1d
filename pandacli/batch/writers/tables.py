"""Answers as a table: the columns of the questions, then ours.

Answers in the shape of OpenAI's Batch API.

The shape: https://platform.openai.com/docs/api-reference/batch/request-output.
"""

import csv
import json
from typing import Any, TextIO

from pandacli.batch.readers.questions import Questions
from pandacli.batch.records import Record, RecordError
from pandacli.batch.writers.benchmarks import carried, record_id

OURS = ("answer", "model", "finish_reason", "tokens", "seconds", "error")
"""The columns after those of the questions."""

_OTHERWISE = {"answer": "pred"}


class AnswerTable:
    """A table of answers; its header is written at once.

    A column of the questions stays what it is: ours of the same name is called otherwise, `pred`
    for the answer.

    Args:
        questions: The questions. Where they are no table, they are read once more for their
            fields, which become columns in the order in which they appear.
        out: Where to write.
        delimiter: What keeps the cells apart; None for that of the questions.
    """

    def __init__(self, questions: Questions, out: TextIO, delimiter: str | None = None) -> None:
        self._columns = list(questions.columns) or _fields(questions)
        if questions.in_pairs:
            self._columns += [name for name in ("part", "question") if name not in self._columns]
        taken = set(self._columns)
        names = [_free(name, taken) for name in OURS]
        end, delimiter = "\n", delimiter or questions.delimiter
        self._plain = csv.writer(out, delimiter=delimiter, lineterminator=end)
        # a lone carriage return would end a row, but is not quoted on its own by every Python
        self._quoted = csv.writer(
            out, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL
        )
        self._write_row(self._columns + names)

    def write(self, record: Record | None, line: dict[str, Any]) -> None:
        """Add a row.

        Args:
            record: The record; None for a line that is none.
            line: Its line in our own answers file.
        """
        fields = line | line.get("given", {}) if record is None else _told(record)
        failed = "error" in line
        ours: list[Any] = ["" if failed else line[name] for name in OURS[:-1]]
        error = f"{line['error']['kind']}: {line['error']['message']}" if failed else ""
        self._write_row([fields.get(name) for name in self._columns] + ours + [error])

    def _write_row(self, values: list[Any]) -> None:
        cells = [_cell(value) for value in values]
        writer = self._quoted if any("\r" in cell for cell in cells) else self._plain
        writer.writerow(cells)


def _fields(questions: Questions) -> list[str]:
    columns: dict[str, None] = {}
    for _, line, raw in questions.entries():
        try:
            for record in questions.records(raw, line):
                columns |= dict.fromkeys(_told(record))
        except RecordError:
            continue
    return list(columns)


def _told(record: Record) -> dict[str, Any]:
    fields = carried(record)
    told: dict[str, Any] = {}
    if fields is not record.fields:
        told = {"video": record.video, "question": record.question}
    if record.parts > 1:
        told = {"part": record.part, "question": record.question}
    return fields | told


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    # half characters, which JSON can hold, cannot be written
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _free(name: str, taken: set[str]) -> str:
    """A name for a column of ours that the questions do not have."""
    wanted = [name, _OTHERWISE.get(name, f"panda_{name}")]
    numbered = (f"panda_{name}_{number}" for number in range(1, len(taken) + 2))
    free = next(each for each in (*wanted, *numbered) if each not in taken)
    taken.add(free)
    return free


def response(record: Record | None, line: dict[str, Any]) -> dict[str, Any]:
    """What came of a request.

    Args:
        record: The request; None for a line that is none.
        line: Its line in our own answers file.
    """
    name = line["digest"]
    written = line.get("custom_id") if record is None else record_id(record)
    said: dict[str, Any] = {
        "id": f"batch_req_{name}",
        "custom_id": f"line-{line['line']}" if written is None else str(written),
    }
    if "error" in line:
        error = {"code": line["error"]["kind"], "message": line["error"]["message"]}
        return said | {"response": None, "error": error}
    answered = {"status_code": 200, "request_id": f"req_{name}", "body": _completion(name, line)}
    return said | {"response": answered, "error": None}


def _completion(name: str, line: dict[str, Any]) -> dict[str, Any]:
    """A chat completion. The tokens of the prompt are not counted, as questions share them, and
    there is no time in it, so that the same answers make the same file.
    """
    message = {"role": "assistant", "content": line["answer"], "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None}
    tokens = line["tokens"]
    return {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": 0,
        "model": line["model"],
        "choices": [choice | {"finish_reason": line["finish_reason"]}],
        "usage": {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens},
    }
