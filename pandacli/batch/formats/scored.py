"""Answers as the scoring scripts for video question answering read them.

What they read was taken from the scripts themselves: `quantitative_evaluation/` of
mbzuai-oryx/Video-ChatGPT and `videollava/eval/video/` of PKU-YuanGroup/Video-LLaVA.
"""

from pathlib import PurePosixPath
from typing import Any

from pandacli.batch.formats.requests import is_request
from pandacli.batch.records import Record

_IDS = ("question_id", "id", "custom_id", "qid")
_RIGHT = ("answer", "A")
_OUTSIDE_OF_REQUEST = ("method", "url", "body")


def carried(record: Record) -> dict[str, Any]:
    """The fields of a record that are worth telling again: of a request, its id only."""
    if not is_request(record.fields):
        return record.fields
    return {k: v for k, v in record.fields.items() if k not in _OUTSIDE_OF_REQUEST}


def record_id(record: Record) -> Any:
    """By what a record is told from the others: the id it has, or else its line."""
    found = next((record.fields[name] for name in _IDS if _scalar(record, name)), record.line)
    return f"{found}_{record.part + 1}" if record.parts > 1 else found


def qa_entry(record: Record, answer: str) -> dict[str, Any]:
    """An answer to a question of MSVD-QA and its kin."""
    own = carried(record) | {"id": record_id(record), "video_name": _video_name(record)}
    return (
        own
        | {"question": record.question, "Q": record.question}
        | _right(record)
        | {"pred": answer}
    )


def generic_entry(record: Record, answer: str) -> dict[str, Any]:
    """An answer to a question of Video-ChatGPT's generative benchmark."""
    own = carried(record) | {"video_name": _video_name(record), "Q": record.question}
    right = _right(record)
    return own | ({"A": right["A"]} if right else {}) | {"pred": answer}


def pair_entry(record: Record, answers: list[str]) -> dict[str, Any]:
    """The answers to both questions of an entry of the consistency benchmark.

    Args:
        record: One of them.
        answers: What was answered, in the order of the questions.
    """
    own = carried(record) | {"video_name": _video_name(record)}
    return own | {f"pred{number}": answer for number, answer in enumerate(answers, 1)}


def _video_name(record: Record) -> str:
    """The name that the entry has, else that of the file: scripts call files by it."""
    name = record.fields.get("video_name")
    return name if isinstance(name, str) and name else PurePosixPath(record.video).stem


def _right(record: Record) -> dict[str, Any]:
    """The right answer by both names that scripts have for it; empty where it is not known."""
    right = next((record.fields[name] for name in _RIGHT if _scalar(record, name)), None)
    return {} if right is None else {"answer": right, "A": right}


def _scalar(record: Record, name: str) -> bool:
    value = record.fields.get(name)
    return isinstance(value, str | int | float) and value != ""
