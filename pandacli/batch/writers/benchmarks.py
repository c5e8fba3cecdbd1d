"""Answers as the scoring scripts for video question answering read them.

What they read was taken from the scripts themselves: `quantitative_evaluation/` of
mbzuai-oryx/Video-ChatGPT and `videollava/eval/video/` of PKU-YuanGroup/Video-LLaVA.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

from pandacli.batch.readers.conversations import is_conversation, is_request, right_answer
from pandacli.batch.records import Record

_IDS = ("question_id", "id", "custom_id", "qid", "vid_id", "q_uid")
_RIGHT = ("answer", "A")
_OUTSIDE_OF_REQUEST = ("method", "url", "body")


def carried(record: Record) -> dict[str, Any]:
    """The fields of a record that are worth telling again: of a request, its id only."""
    if not is_request(record.fields):
        return record.fields
    return {k: v for k, v in record.fields.items() if k not in _OUTSIDE_OF_REQUEST}


def record_id(record: Record) -> str:
    """The id that a record has, its name in any case; else its line. Scripts want a string."""
    found: Any = next((record.fields[name] for name in _IDS if _scalar(record, name)), None)
    if found is None:
        others = {name.casefold(): name for name in record.fields if _scalar(record, name)}
        found = next((record.fields[others[name]] for name in _IDS if name in others), record.line)
    return f"{found}_{record.part + 1}" if record.parts > 1 else str(found)


def unique_ids(
    records: Callable[[], Iterable[Record]],
) -> tuple[Callable[[Record], str], bool]:
    """Returns ids that are names of files and occur once, as the scripts need them.

    Args:
        records: Returns all records of a file, so that the ids of a shard are those of the whole;
            called up to twice.

    Returns:
        What gives the id of a record, and whether the ids in the file repeat. NExT-QA counts them
        within a video: there each is made of the video and the id, and where even that repeats,
        the later ones are numbered.
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


def qa_entry(record: Record, answer: str, name: str) -> dict[str, Any]:
    """An answer to a question of MSVD-QA and its kin, under the id `name`."""
    own = carried(record) | {"id": name, "video_name": _video_name(record)}
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


def has_right_answer(record: Record) -> bool:
    """Whether the right answer is known, which every script wants."""
    return bool(_right(record))


def _right(record: Record) -> dict[str, Any]:
    """The right answer by both names that scripts have for it; empty where it is not known."""
    right = next((record.fields[name] for name in _RIGHT if _scalar(record, name)), None)
    if right is None and is_conversation(record.fields):
        right = right_answer(record.fields)
    return {} if right is None else {"answer": right, "A": right}


def _scalar(record: Record, name: str) -> bool:
    value = record.fields.get(name)
    return isinstance(value, str | int | float) and value != ""
