"""Results of multiple choice in the layouts that the scoring of data sets reads.

Taken from what these read: `eval_mc.py` of doc-doc/NExT-QA, `eval_your_results.py` of
BradyFU/Video-MME, the validation servers of EgoSchema and TVQA, the multiple-choice baseline of
google-deepmind/perception_test, and scripts for MVBench, which compare two fields of each line.

They look up every question, or count the lines, so one that has failed is there, without a choice
(-1, or an empty letter), which is wrong; only Video-MME's script leaves it out of the denominator.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, BinaryIO, NamedTuple, TextIO

from pandacli.batch.readers.choices import find_choices, letter
from pandacli.batch.readers.entries import MOST_BYTES
from pandacli.batch.readers.fields import id_in, names_in
from pandacli.batch.records import BadLine, Record
from pandacli.batch.results import Line
from pandacli.batch.writers import Results, unique_ids, video_name

_NONE = -1  # the index of no choice

# fields of a video in either version of Video-MME; others are of a question
_OF_VIDEO = (
    *("video_id", "videoID", "url", "duration", "domain", "sub_category"),
    *("duration_category", "video_category", "video_subcategory"),
)


class _Chosen(NamedTuple):
    record: Record
    answer: int  # index of the choice that was answered, or _NONE
    right: int | None  # index of the right choice, where the entry has it

    @property
    def letter(self) -> str:
        return "" if self.answer == _NONE else letter(self.answer)


def as_object(
    entries: Callable[[Results], Iterator[tuple[str, Any]]], is_entry: Callable[[Any], bool]
) -> dict[str, Any]:
    """The fields of a `Format` that write named entries as one JSON object."""

    def write(results: Results, out: TextIO) -> None:
        out.write("{")
        for number, (name, entry) in enumerate(entries(results)):
            out.write((",\n" if number else "\n") + f"{json.dumps(name)}: {json.dumps(entry)}")
        out.write("\n}\n")

    def is_output(file: BinaryIO) -> bool:
        if file.readline(MOST_BYTES) != b"{\n":
            return False
        first = file.readline(MOST_BYTES).rstrip(b",\n")
        try:
            found = {} if first == b"}" else json.loads(b"{" + first + b"}")
        except (ValueError, RecursionError):
            return False
        return all(map(is_entry, found.values()))

    return {"write": write, "is_output": is_output, "extension": ".json", "of_choices": True}


def indices(results: Results) -> Iterator[tuple[str, int]]:
    """The index of the choice by the id of the question."""
    id_of = unique_ids(results)
    for chosen in _chosen(results):
        yield id_of(chosen.record), chosen.answer


def nextqa_entries(results: Results) -> Iterator[tuple[str, Line]]:
    """Entries of {"prediction": index, "answer": index} by video_qid."""
    id_of = unique_ids(results, by_video=True)
    for record, index, right in _chosen(results, scored=True):
        yield id_of(record), record.fields | {"prediction": index, "answer": right}


def perception_test_entries(results: Results) -> Iterator[tuple[str, list[Line]]]:
    """A list of {"id", "answer_id": index, "answer": text} for each video."""
    videos: dict[str, list[Line]] = {}
    for record, index, _ in _chosen(results):
        own = id_in(record.fields)
        own = int(own) if isinstance(own, str) and own.isdecimal() else own
        text = "" if index == _NONE else record.choices[index]
        entry = {"id": own, "answer_id": index, "answer": text}
        videos.setdefault(video_name(record), []).append(entry)
    yield from videos.items()


def video_mme_entries(results: Results) -> Iterator[Line]:
    """Videos with "questions", each with the letter of its "response"; "missing" without any."""
    videos: dict[str, Line] = {}
    for chosen in _chosen(results, scored=True):
        fields = chosen.record.fields
        shared = {name: fields[name] for name in _OF_VIDEO if name in fields}
        video = videos.setdefault(chosen.record.video, shared | {"missing": True, "questions": []})
        video["missing"] &= chosen.answer == _NONE
        own = {name: value for name, value in fields.items() if name not in _OF_VIDEO}
        video["questions"].append(own | {"response": chosen.letter})
    yield from videos.values()


def letter_entries(results: Results) -> Iterator[Line]:
    """Entries of {"id", "video_name", "task_type", "question", "pred": letter, "gt": letter}."""
    id_of = unique_ids(results)
    # as the tasks of MVBench are called, of which each is a file
    task = PurePath(results.questions.name).stem.replace("_", " ").title()
    task = task.replace("Fine Grained", "Fine-grained")
    for chosen in _chosen(results, scored=True):
        record = chosen.record
        own = record.fields.get("task_type")
        ours = {"id": id_of(record), "video_name": video_name(record), "question": record.question}
        ours["task_type"] = own if isinstance(own, str) else task
        right = {} if chosen.right is None else {"gt": letter(chosen.right)}
        yield record.fields | ours | {"pred": chosen.letter} | right


def _chosen(results: Results, *, scored: bool = False) -> Iterator[_Chosen]:
    """The questions with choices that have a result, failed ones too; others are counted."""
    left_out = failed = without = 0
    for item, digest in zip(results.questions.records, results.digests, strict=True):
        if (line := results.find(digest)) is None:
            continue
        record = _stand_in(item) if isinstance(item, BadLine) else item
        if record is None or not (record.choices or isinstance(item, BadLine)):
            left_out += 1
            continue
        answer = None if "error" in line else line["answer"]
        index = record.choices.index(answer) if answer in record.choices else _NONE
        read = find_choices(record.fields)
        right = read.correct if read else None
        failed += index == _NONE
        without += right is None
        yield _Chosen(record, index, right)
    if left_out:
        results.notices.append(f"{left_out:,} lines without choices are left out")
    if failed:
        results.notices.append(f"{failed:,} questions are written without a choice, as wrong")
    if without and scored:
        results.notices.append(f"{without:,} questions have no right answer beside them")


def _stand_in(bad: BadLine) -> Record | None:
    """A record without choices for an entry that is refused, such as for a choice given twice."""
    fields = bad.error.fields or {}
    names = names_in(tuple(fields))
    return names and Record(
        bad.line, fields, str(fields[names.video]), str(fields[names.questions[0]])
    )
