"""The table of record formats: how each is recognized, read and written.

To add one, write a function that reads (the fields of an entry to its records) and one that writes
(results to a file), and add a row to `FORMATS`; the options and completions follow. Entries are the
objects of JSON lines, of a JSON array or of Parquet; another layout needs `entries` and `detect`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from pandacli.batch import choice_writers, moment_writers, writers
from pandacli.batch.choice_writers import as_object
from pandacli.batch.readers import conversations
from pandacli.batch.readers.entries import Entries, Source
from pandacli.batch.readers.fields import PAIR, named_fields, read_row
from pandacli.batch.readers.moments import charades_entries, is_charades, read_highlights
from pandacli.batch.readers.tables import Table, is_table
from pandacli.batch.records import Record
from pandacli.batch.results import Line
from pandacli.batch.writers import Results, as_array, as_literals
from pandacli.errors import UsageError

if TYPE_CHECKING:
    from pandacli.batch.readers.questions import Questions


@dataclass(frozen=True)
class Format:
    """A record format."""

    # the records of an entry, from its fields and its line; raises RecordError; None: only written
    read: Callable[[dict[str, Any], int], list[Record]] | None = None
    # whether the fields of the first entry are of this format, for `--format auto`; or of the data
    # set whose scoring reads it, for `--output-format same`
    recognize: Callable[[dict[str, Any]], bool] = lambda _: False
    # the entries of a file that is not JSON or Parquet
    entries: Callable[[Source], Entries] | None = None
    # whether a file that is not JSON is to be read by `entries`, for `--format auto`
    detect: Callable[[Source], bool] = lambda _: False
    # writes the results of a run; None: ours, which is written line by line
    write: Callable[[Results, TextIO], None] | None = None
    # whether a file begins as `write` begins one, and may be replaced by it
    is_output: Callable[[BinaryIO], bool] = lambda _: False
    extension: str = ".jsonl"  # of the name of an output file
    in_pairs: bool = False  # whether it needs entries with two questions
    of_choices: bool = False  # whether it needs questions with choices
    of_moments: bool = False  # whether it needs questions that ask for segments


def _read_own(fields: dict[str, Any], line: int) -> list[Record]:
    if conversations.is_conversation(fields):
        return conversations.read_conversation(fields, line)
    return _read_fields(fields, line)


def _is_qa(fields: dict[str, Any]) -> bool:
    named = "video_name" in fields or "video_id" in fields
    return named and "video" not in fields and not conversations.is_conversation(fields)


_read_fields = named_fields("video", "question")
_QA = {"id", "video_name", "question", "Q", "pred"}
_GENERIC = {"video_name", "Q", "pred"}
_PAIRS = {"video_name", "pred1", "pred2"}


def _has(*names: set[str]) -> Callable[[dict[str, Any]], bool]:
    """A check that an entry has one of these sets of fields."""
    return lambda fields: any(each <= fields.keys() for each in names)


def _is_index(entry: Any) -> bool:
    return type(entry) is int


def _is_prediction(entry: Any) -> bool:
    return isinstance(entry, dict) and {"prediction", "answer"} <= entry.keys()


def _are_answers(entry: Any) -> bool:
    answers = {"id", "answer_id", "answer"}
    return isinstance(entry, list) and all(e.keys() == answers for e in entry)


FORMATS = {
    # ours: {"video", "question", ...}, or a conversation, of which the first turn is asked
    "jsonl": Format(_read_own),
    # MSVD-QA, MSRVTT-QA, TGIF-QA and ActivityNet-QA as Video-ChatGPT lays them out, reference
    # answers in another file: {"video_name", "question", "question_id"}; written as {"id",
    # "video_name", "question", "answer", "pred"}, and again "Q" and "A" for its script
    "qa": Format(
        named_fields("video_name", "question"), _is_qa, **as_array(writers.qa_entries, _QA, _PAIRS)
    ),
    # `...-lines` are literals of Python, as the scripts of Video-LLaVA and Video-Panda read them
    "qa-lines": Format(
        **as_literals(writers.qa_or_pair_entries, _QA, _PAIRS), extension=".qa.jsonl"
    ),
    # Video-ChatGPT's generative benchmark: {"video_name", "Q", "A"}, written with "pred"
    "generic": Format(
        named_fields("video_name", "Q"),
        lambda fields: "Q" in fields and "question" not in fields,
        **as_array(writers.generic_entries, _GENERIC),
    ),
    "generic-lines": Format(
        **as_literals(writers.generic_entries, _GENERIC), extension=".generic.jsonl"
    ),
    # Video-ChatGPT's consistency: {"video_name", "Q1", "Q2", "A"}, written with "pred1", "pred2"
    "consistency": Format(
        named_fields("video_name", *PAIR),
        lambda fields: all(name in fields for name in PAIR),
        **as_array(writers.pair_entries, _PAIRS),
        in_pairs=True,
    ),
    "consistency-lines": Format(
        **as_literals(writers.pair_entries, _PAIRS), extension=".consistency.jsonl", in_pairs=True
    ),
    # a table with a header; columns are named like the fields of the others
    "csv": Format(
        read_row,
        entries=Table,
        detect=is_table,
        write=writers.write_table,
        is_output=writers.is_result_table,
        extension=".csv",
    ),
    # requests and responses of OpenAI's Batch API, with a video_url that is a local path
    "openai": Format(
        conversations.read_request,
        conversations.is_request,
        write=writers.write_responses,
        is_output=writers.has_keys({"id", "custom_id", "response", "error"}),
        extension=".openai.jsonl",
    ),
    # Charades-STA: VIDEO START END##sentence, one a line
    "charades-sta": Format(
        _read_fields,
        entries=charades_entries,
        detect=is_charades,
        write=moment_writers.write_charades,
        is_output=moment_writers.is_charades_output,
        extension=".txt",
        of_moments=True,
    ),
    # QVHighlights: {"qid", "query", "vid", ...}; written as {"qid", "query", "vid",
    # "pred_relevant_windows": [[start, end, score]], "pred_saliency_scores": [...]}, one a line
    "qvhighlights": Format(
        read_highlights,
        _has({"qid", "query", "vid"}),
        write=moment_writers.write_highlights,
        is_output=writers.has_keys({"qid", "vid", "pred_relevant_windows"}),
        extension=".submission.jsonl",
        of_moments=True,
    ),
    # NExT-QA: {"video_qid": {"prediction": 0, "answer": 3}}
    "nextqa": Format(
        recognize=_has({"video", "qid", "type", "a0"}),
        **as_object(choice_writers.nextqa_entries, _is_prediction),
    ),
    # EgoSchema and TVQA: {"id": 3}
    "indices": Format(
        recognize=_has({"q_uid"}, {"video_idx", "option"}, {"vid_name", "qid", "a0"}),
        **as_object(choice_writers.indices, _is_index),
    ),
    # Video-MME: [{"video_id", ..., "questions": [{"question_id", ..., "response": "C"}]}]
    "video-mme": Format(
        recognize=_has({"video_id", "question_id", "task_type", "question"}),
        **as_array(choice_writers.video_mme_entries, {"missing", "questions"}),
        of_choices=True,
    ),
    # the Perception Test: {"video": [{"id", "answer_id": 1, "answer": "2"}]}
    "perception-test": Format(
        recognize=_has({"options", "area", "reasoning"}),
        **as_object(choice_writers.perception_test_entries, _are_answers),
    ),
    # MVBench and others: {"id", "task_type", "question", "pred": "C", "gt": "B"}, one a line
    "letters": Format(
        recognize=_has({"candidates"}),
        **as_literals(choice_writers.letter_entries, {"id", "task_type", "pred"}),
        extension=".letters.jsonl",
        of_choices=True,
    ),
}

INPUT_FORMATS = tuple(name for name, row in FORMATS.items() if row.read)
OUTPUT_FORMATS = tuple(FORMATS)


def check_output(questions: "Questions", name: str) -> None:
    """Raise UsageError if this format is for other questions: pairs, choices, or segments."""
    if FORMATS[name].in_pairs and not questions.in_pairs:
        raise UsageError(f"{questions.name} does not have two questions an entry: Q1 and Q2")
    if FORMATS[name].of_choices and not questions.has_choices:
        raise UsageError(f"{questions.name} has no choices", f"the format {name} is for choices")
    if FORMATS[name].of_moments and not questions.has_moments:
        hint = f'the format {name} is for records with "when": true'
        raise UsageError(f"{questions.name} has no questions that ask for segments", hint)


def write_results(
    questions: "Questions",
    name: str,  # one of `OUTPUT_FORMATS`, but not jsonl, which the others are made from
    digests: Sequence[int],  # of all records and bad lines
    find: Callable[[int], Line | None],  # the line of the results file with a digest
    out: TextIO,  # opened with `newline=""`
    *,
    delimiter: str | None = None,  # between the cells of a table; None for that of the questions
) -> list[str]:
    """Write all results in the order of the questions; return notices for a user who scores them.

    What has no answer is left out, as scoring scripts expect; only csv and openai hold errors, and
    formats for choices hold failed questions without a choice.
    """
    check_output(questions, name)
    write = FORMATS[name].write
    assert write is not None, "our own format is written line by line"
    results = Results(questions, digests, find, delimiter or questions.delimiter)
    write(results, out)
    return results.notices
