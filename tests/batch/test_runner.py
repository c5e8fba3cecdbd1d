"""Batches from the file of questions to the results file; every line has one result."""

import errno
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from io import FileIO
from pathlib import Path
from random import Random

import pytest
import torch

from pandacli import checkpoints
from pandacli.batch import results_file
from pandacli.batch.job import Batch, Job
from pandacli.batch.log import encode_line
from pandacli.batch.records import Record, record_hash
from pandacli.errors import ClipError
from pandacli.inference.planning import planner
from pandacli.inference.spec import RunSpec
from pandacli.video import Clip, sample_frames
from tests.batch.conftest import Ran, as_line, ask, settings_of

VIDEOS = ("wide.avi", "tall.avi")

BROKEN = [
    b"not json",
    b'{"video": "wide.avi"}',
    b'{"video": 3, "question": "Why?"}',
    b'{"video": "wide.avi", "question": ""}',
    b'{"video": "missing.avi", "question": "Why?"}',
    b'{"video": "text.avi", "question": "Why?"}',
    b'{"video": "wide.avi", "question": "Why?", "from": 99}',
    b'{"video": "wide.avi", "question": "Why?", "from": 1, "to": 0.5}',
    b'{"video": "wide.avi", "question": "Why?", "max_tokens": "many"}',
    b"[1, 2]",
    b"\xff\xfe\x00",
    b'{"video": "wide.avi", "question": "' + b"why " * 500_000 + b'"}',
    b'{"video": "wide.avi", "question": "Why?", "deep": ' + b"[" * 50_000 + b"}",
]


@pytest.fixture(scope="module", autouse=True)
def text(clips: Path) -> None:
    """A file beside the clips that is not a video."""
    (clips / "text.avi").write_text("not a video")


def test_questions_of_a_clip_are_batched(batch, read_clips) -> None:
    ran = batch([ask(n, VIDEOS[n % 2], f"Why {n}?") for n in range(6)])
    assert [clip.path.name for clip in read_clips] == ["wide.avi", "tall.avi"]
    assert [outcome.line for outcome in ran.outcomes[:3] if outcome.line % 2 == 0] == []
    assert sorted(ran.answers) == list(range(6))
    assert (ran.counters.clips, ran.counters.clips_done, ran.loads) == (2, 2, 1)


def test_answers_equal_single_questions(batch, panda, clips) -> None:
    of_their_own = {"from": "0:00.5", "to": 1.5, "system": "Be kind.", "max_tokens": 3}
    ran = batch(
        [
            ask("plain", "tall.avi"),
            ask("own", "tall.avi", "What happens?", **of_their_own),
            ask("other", "odd.avi", "What happens?"),
        ],
        start=1.0,
    )
    plain = panda.open(sample_frames(Clip(clips / "tall.avi", 1.0), 8))
    own = panda.open(sample_frames(Clip(clips / "tall.avi", 0.5, 1.5), 8)).with_system("Be kind.")
    other = panda.open(sample_frames(Clip(clips / "odd.avi", 1.0), 8))
    assert ran.answers == {
        "plain": plain.ask("Why?", max_tokens=6).text,
        "own": own.ask("What happens?", max_tokens=3).text,
        "other": other.ask("What happens?", max_tokens=6).text,
    }


def test_record_fields_are_kept_in_the_result(batch) -> None:
    more = {"tags": ["a", {"b": None}], "answer": "gold", "seconds": 12}
    (line,) = batch([ask(7, **more)]).lines
    assert line["tags"] == ["a", {"b": None}]
    assert line["given"] == {"answer": "gold", "seconds": 12}
    assert line["answer"] != "gold"
    assert (line["finish_reason"], line["tokens"]) == ("length", 6)


def test_broken_lines_are_reported_and_the_rest_answered(batch) -> None:
    records = [line for n, bad in enumerate(BROKEN) for line in (bad, ask(n, "tall.avi"))]
    ran = batch(records)
    failed = {line["line"]: line["error"] for line in ran.lines if "error" in line}
    assert sorted(failed) == [2 * n + 1 for n in range(len(BROKEN))]
    assert all(error["message"] and "\n" not in error["message"] for error in failed.values())
    kinds = {"record": 8, "clip": 3, "question": 2}  # a number may be the name of a video
    assert Counter(error["kind"] for error in failed.values()) == kinds
    assert {n for n, answer in ran.answers.items() if answer} == set(range(len(BROKEN)))
    assert (ran.counters.failed, ran.counters.answered, ran.counters.left) == (13, 13, 0)


def test_model_is_not_loaded_without_valid_records(batch) -> None:
    assert batch(BROKEN[:6]).loads == 0


def test_rerun_answers_nothing_and_keeps_the_file(batch) -> None:
    records = [ask(n, question=f"Why {n}?") for n in range(3)]
    before = batch(records).path.read_bytes()
    again = batch(records)
    assert (again.outcomes, again.loads, again.counters.earlier) == ([], 0, 3)
    assert again.path.read_bytes() == before


def test_rerun_retries_only_failures(batch, clips) -> None:
    records = [ask(1), ask(2, "late.avi")]
    assert batch(records).answers[2] is None
    (clips / "late.avi").write_bytes((clips / "wide.avi").read_bytes())
    again = batch(records)
    assert [outcome.line for outcome in again.outcomes] == [2]
    assert sorted(again.answers) == [1, 2]
    assert again.answers[2] == again.answers[1]


def test_edited_question_is_answered_again(batch) -> None:
    batch([ask(1), ask(2)])
    again = batch([ask(1), ask(2, question="Why not?")])
    assert [outcome.question for outcome in again.outcomes] == ["Why not?"]
    assert again.counters.earlier == 1


@pytest.mark.parametrize(
    "change",
    [{"max_tokens": 5}, {"system": "Be kind."}, {"frames": 4}, {"end": 1.0}, {"temperature": 1.0}],
    ids=str,
)
def test_changed_setting_answers_again(batch, change) -> None:
    batch([ask(1)])
    assert batch([ask(1)], **change).counters.answered == 1


def test_changed_batch_size_answers_nothing_again(batch) -> None:
    batch([ask(1)])
    assert batch([ask(1)], batch_size=1).counters.answered == 0


def test_duplicate_line_has_two_results(batch) -> None:
    ran = batch([ask(1), ask(1)])
    assert [line["answer"] for line in ran.lines] == [ran.lines[0]["answer"]] * 2
    assert batch([ask(1), ask(1)]).counters.answered == 0
    assert batch([ask(1)] * 3).counters.answered == 1


def test_fail_fast_stops_at_the_first_failure(batch) -> None:
    records = [ask(1, question="Why 1?"), ask(2, "missing.avi"), ask(3, "tall.avi")]
    ran = batch(records, fail_fast=True)
    assert [outcome.line for outcome in ran.outcomes] == [1, 2]
    assert ran.counters.left == 1


def test_fail_fast_stops_at_an_invalid_line_first(batch) -> None:
    ran = batch([ask(1), b"not json", b"nor this"], fail_fast=True)
    assert [outcome.line for outcome in ran.outcomes] == [2]
    assert ran.loads == 0


def test_resumes_after_fail_fast(batch) -> None:
    records = [ask(1, "missing.avi"), ask(2), ask(3, "tall.avi")]
    batch(records, fail_fast=True)
    assert sorted(batch(records).answers) == [1, 2, 3]


def test_shards_cover_all_clips_once(batch, clips) -> None:
    names = [path.name for path in sorted(clips.glob("*.avi"))]
    records = [ask(n, names[n % len(names)]) for n in range(12)] + [b"not json"]
    shards = [batch(records, shard=(part, 3)) for part in (1, 2, 3)]
    assert len({ran.path for ran in shards}) == 3
    ids = [line.get("id") for ran in shards for line in ran.lines]
    assert sorted(ids, key=str) == sorted([*range(12), None], key=str)
    videos = [{line.get("video") for line in ran.lines} for ran in shards]
    assert sum(map(len, videos)) == len(set.union(*videos))


def test_empty_file_has_no_results(batch) -> None:
    ran = batch([])
    assert (ran.outcomes, ran.loads, ran.lines) == ([], 0, [])


def test_edits_during_a_run_are_ignored(tmp_path, panda, checkpoint, clips) -> None:
    records = [ask(1, question="Why 1?"), ask(2, "tall.avi", "Why 2?")]
    questions = tmp_path / "own.jsonl"
    questions.write_text("".join(json.dumps(record) + "\n" for record in records))
    job = Job(str(questions), settings_of(checkpoint), video_dir=clips)
    with Batch(job) as opened:
        outcomes = opened.plan().outcomes(lambda: panda)
        assert next(outcomes).error is None
        questions.write_text("nonsense")
        (second,) = outcomes
    assert (second.line, second.question, second.error) == (2, "Why 2?", None)


def test_full_disk_ends_the_run_and_resumes(batch, monkeypatch) -> None:
    append, written = results_file._append, []

    def fill(file: FileIO, data: bytes) -> None:
        if len(written) == 2:
            append(file, data[:20])
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(data)
        append(file, data)

    records = [ask(n, question=f"Why {n}?") for n in range(4)]
    with monkeypatch.context() as patch:
        patch.setattr(results_file, "_append", fill)
        with pytest.raises(ClipError, match="is full"):
            batch(records)
    again = batch(records)
    assert again.counters.earlier == 2
    assert sorted(again.answers) == [0, 1, 2, 3]


def test_memory_stays_bounded_over_ten_thousand_lines(batch) -> None:
    """Half of them are broken; each has one result."""
    notes = "x" * 6_000
    good = [ask(n, VIDEOS[n % 2], f"Why {n % 40}?", notes=notes) for n in range(5_000)]
    bad = [BROKEN[n % 11] for n in range(5_000)]
    records = [line for both in zip(good, bad, strict=True) for line in both]
    tracemalloc.start()
    ran = batch(records, keep=0, max_tokens=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(n for n, answer in ran.answers.items() if answer) == list(range(5_000))
    failed = sorted(line["line"] for line in ran.lines if "error" in line)
    assert failed == list(range(2, 10_001, 2))
    assert peak < 12_000_000 < ran.path.stat().st_size / 2


RECORDS = [{"id": n, "video": "wide.avi", "question": f"what is {n}?"} for n in range(3)]


def test_other_precision_answers_again(
    batch: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command on another machine, where auto resolves to another dtype."""
    batch(RECORDS)
    numbers = [torch.float16, torch.bfloat16]
    Random(8).shuffle(numbers)
    for number in numbers:
        with monkeypatch.context() as there:
            there.setattr(planner, "pick_dtype", lambda _, number=number: number)
            assert batch(RECORDS).counters.earlier == 0
            assert batch(RECORDS).counters.earlier == len(RECORDS)
    assert batch(RECORDS).counters.earlier == len(RECORDS), "the first machine finds its own"


@pytest.mark.parametrize(
    ("quant", "engine"), [("8bit", "torch"), ("8bit", "bitsandbytes"), ("4bit", "bitsandbytes")]
)
def test_resolved_auto_is_part_of_the_digest(
    batch: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, quant: str, engine: str
) -> None:
    batch(RECORDS)
    resolve_run = planner.resolve_run
    monkeypatch.setattr(
        planner, "resolve_run", lambda *a: replace(resolve_run(*a), quant=quant, backend=engine)
    )
    assert batch(RECORDS).counters.earlier == 0
    assert batch(RECORDS, quant=quant, backend=engine).counters.earlier == len(RECORDS)


def test_naming_the_resolved_auto_answers_nothing_again(batch: Callable[..., Ran]) -> None:
    batch(RECORDS)
    named = {"quant": "none", "backend": "torch", "device": "cpu"}
    for count in range(len(named) + 1):
        ran = batch(RECORDS, **dict(list(named.items())[:count]))
        assert (ran.counters.earlier, ran.loads) == (len(RECORDS), 0)


def test_plan_resolves_auto_in_the_settings(tmp_path: Path, checkpoint: Path, clips: Path) -> None:
    (tmp_path / "q.jsonl").write_bytes(as_line(RECORDS[0]))
    job = Job(str(tmp_path / "q.jsonl"), settings_of(checkpoint, device="cpu"), video_dir=clips)
    with Batch(job) as opened:
        opened.plan()
        settled = opened.settings.spec
    assert settled == RunSpec(checkpoint, "none", "torch", "cpu")


def test_results_with_old_digests_are_kept_and_answered_again(
    batch: Callable[..., Ran], checkpoint: Path
) -> None:
    """Old versions hashed the names as given, without the engine."""
    first = batch(RECORDS)
    settings = settings_of(checkpoint).digest_fields()
    del settings["engine"]
    settings["weights"] = checkpoints.model_digest(checkpoints.resolve(str(checkpoint)))
    digest_of = record_hash(settings)
    old = [
        {
            **line,
            "digest": f"{digest_of(Record(1, record, record['video'], record['question'])):016x}",
        }
        for line, record in zip(first.lines, RECORDS, strict=True)
    ]
    first.path.write_bytes(b"".join(map(encode_line, old)))
    ran = batch(RECORDS)
    assert ran.counters.earlier == 0
    assert ran.lines[: len(old)] == old
    assert len(ran.lines) == 2 * len(RECORDS)
