"""What a check finds: it is what a run fails at, before there is a model."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import Mock

import pytest

from pandacli.batch import check
from pandacli.batch.check import Check, Problem
from pandacli.batch.job import Job
from pandacli.errors import ClipError, UsageError
from pandacli.video import Clip, prefetch
from tests.batch import crashing_decoder
from tests.batch.conftest import as_line, ask, settings_of

Checked = tuple[list[Problem], Check]


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    """The clips, and files that are none."""
    for clip in clips.iterdir():
        (tmp_path / clip.name).write_bytes(clip.read_bytes())
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    whole = (clips / "wide.avi").read_bytes()
    (tmp_path / "short.avi").write_bytes(whole[: len(whole) // 2])
    return tmp_path


@pytest.fixture
def checked(folder: Path) -> Callable[..., Checked]:
    """Checks records: the problems, and the check after it."""

    def check(records: Iterable[Any], **changes: Any) -> Checked:
        path = folder / "q.jsonl"
        path.write_bytes(b"".join(map(as_line, records)))
        of_job = {n: changes.pop(n) for n in list(changes) if n in Job.__dataclass_fields__}
        with Check(Job(str(path), settings_of("no such model", **changes), **of_job)) as opened:
            return list(opened.problems()), opened

    return check


def sentences(problems: list[Problem], folder: Path) -> list[str]:
    return [problem.sentence.replace(str(folder), "HERE") for problem in problems]


@pytest.mark.usefixtures("read_clips")
def test_questions_that_can_be_answered_have_no_problems(checked) -> None:
    problems, check = checked([ask(1), ask(2), ask(3, "tall.avi")])
    assert problems == check.notices == []
    assert check.counts.summary == "3 questions on 2 clips can be answered"
    assert checked([ask(1)])[1].counts.summary == "1 question on 1 clip can be answered"


@pytest.mark.usefixtures("read_clips")
def test_lines_that_cannot_be_read_are_problems(checked, folder) -> None:
    twice = ask(5, choices=["a", "a"])
    records = [ask(1), b"nonsense", {"video": "wide.avi"}, ask(4, **{"from": 2, "to": 1}), twice]
    problems, check = checked(records)
    assert sentences(problems, folder) == [
        "HERE/q.jsonl:2: not JSON: expecting value at character 1",
        "HERE/q.jsonl:3: the field 'question' is missing; there are 'video'",
        "HERE/q.jsonl:4: the range ends at 0:01, which is not after its start at 0:02",
        "HERE/q.jsonl:5: the field 'choices': 'a' is given twice",
    ]
    assert check.counts.summary == "4 of 5 questions cannot be answered: 4 lines cannot be read"


@pytest.mark.usefixtures("read_clips")
def test_windows_times_and_segments_are_checked(checked, folder) -> None:
    looks = [{"every": 1}, {"at": "0:01"}, {"when": True}, {"at": [1, 60]}, {"every": "soon"}]
    gone = ask(6, "gone.mp4", every=1)
    problems, check = checked([*(ask(n, **look) for n, look in enumerate(looks)), gone])
    assert sentences(problems, folder) == [
        "HERE/q.jsonl:5: the field 'every': 'soon' is not a length of time",
        "gone.mp4: no such file in HERE (1 question)",
        "HERE/wide.avi: the time 1:00 is past the end (the clip is 0:02 long) (1 question)",
    ]
    assert check.counts.clips == 4  # windows and segments look at the same range


@pytest.mark.usefixtures("read_clips")
def test_each_clip_is_one_problem_with_its_questions(checked, folder) -> None:
    videos = ["gone.mp4", "wide.avi", "text.mp4", "empty.mp4", "gone.mp4", "text", "http://a/b.mp4"]
    problems, check = checked([ask(n, video) for n, video in enumerate(videos)])
    assert sentences(problems, folder) == [
        "gone.mp4: no such file in HERE (2 questions)",
        "http://a/b.mp4: is not a file on this machine (1 question)",
        "HERE/text.mp4: is not a video that can be read (2 questions)",
        "HERE/empty.mp4: is empty (1 question)",
    ]
    assert check.counts.summary == (
        "6 of 7 questions cannot be answered: 4 of 5 clips cannot be used"
    )
    assert [problem.record["line"] for problem in problems] == [1, 7, 3, 4]


@pytest.mark.usefixtures("read_clips")
def test_long_names_are_shortened(checked, folder) -> None:
    problems, _ = checked([ask(1, "a" * 10_000)])
    assert sentences(problems, folder) == [f"{'a' * 200}...: no such file in HERE (1 question)"]
    assert problems[0].record["video"] == "a" * 10_000


def test_clip_with_several_names_is_decoded_once(checked, read_clips, folder) -> None:
    names = ["wide.avi", "./wide.avi", "wide", str(folder / "wide.avi")]
    checked([ask(n, name) for n, name in enumerate(names)])
    assert read_clips == [Clip(folder / "wide.avi")]


@pytest.mark.usefixtures("read_clips")
def test_range_outside_the_clip_is_a_problem(checked, folder) -> None:
    ranges = [(0, 1), (1, 2), (50, 60), (50, 70), (60, 70)]
    records = [ask(n, **{"from": start, "to": end}) for n, (start, end) in enumerate(ranges)]
    problems, check = checked(records)
    assert sentences(problems, folder) == [
        f"HERE/wide.avi: the range starts at {start}, past the end (the clip is 0:02 long) ({many})"
        for start, many in (("0:50", "2 questions"), ("1:00", "1 question"))
    ]
    assert check.counts.clips == 5
    problems, _ = checked([ask(1), ask(2, **{"from": 0})], start=9.0)
    assert [(problem.questions, problem.line) for problem in problems] == [(1, 1)]


def test_number_of_frames_is_that_of_the_run(checked, monkeypatch, read_clips) -> None:
    prefetcher = Mock(wraps=check.FramePrefetcher)
    monkeypatch.setattr(check, "FramePrefetcher", prefetcher)
    checked([ask(1)], frames=4)
    assert prefetcher.call_args.args[0] == 4
    assert len(read_clips) == 1


@pytest.mark.usefixtures("read_clips")
def test_damaged_clip_that_can_be_answered_is_a_notice(checked) -> None:
    problems, check = checked([ask(1, "short.avi"), ask(2, "short.avi", **{"from": 0})])
    assert not problems
    [notice] = check.notices
    assert notice.startswith("only 7 of 16 frames of ")


@pytest.mark.usefixtures("read_clips")
def test_shards_have_the_problems_of_the_whole(checked) -> None:
    records = [ask(n, f"{n % 7}.mp4") for n in range(30)] + [b"{", ask(1), b"["]
    whole, check = checked(records)
    parts = [checked(records, shard=(part, 3)) for part in (1, 2, 3)]
    assert sorted((p.line, p.questions) for shard, _ in parts for p in shard) == sorted(
        (p.line, p.questions) for p in whole
    )
    assert sum(part.counts.questions for _, part in parts) == check.counts.questions == 33
    assert all(len(shard) < len(whole) for shard, _ in parts)


@pytest.mark.parametrize("seed", range(2))
def test_check_finds_what_a_run_fails_at(checked, batch, folder, seed) -> None:
    """Also what no sentence here names: the questions that fail are counted by a run."""
    rng = Random(seed)

    def record(number: int) -> Any:
        if rng.random() < 0.15:
            return rng.choice([b"{", b"[1]", b'{"video": "wide.avi"}', b'{"question": "Why?"}'])
        name = rng.choice(["wide.avi", "tall", "odd.avi", "gone", "text.mp4", "short.avi"])
        more: dict[str, Any] = rng.choice([{}, {}, {"choices": rng.choices("abc", k=2)}])
        if rng.random() < 0.3:
            more |= {"from": rng.randrange(4), "to": rng.randrange(1, 6)}
        return ask(number, name, **more)

    records = [record(number) for number in range(24)]
    _, check = checked(records)
    ran = batch(records, video_dir=folder, output=str(folder / "a.jsonl"), max_tokens=1)
    assert check.counts.unanswerable == ran.counters.failed > 0
    assert check.counts.questions == ran.counters.records


def test_crashing_and_hanging_decoders_cost_one_clip_each(checked, folder, monkeypatch) -> None:
    monkeypatch.setattr(prefetch, "read_fitted", crashing_decoder.read_fitted)
    monkeypatch.setattr(prefetch, "TIMEOUT", 0.5)
    monkeypatch.setattr(prefetch, "_BYTES_PER_SECOND", 1.0)
    names = [crashing_decoder.CRASHING, crashing_decoder.ENDLESS]
    for name, size in zip(names, (1000, 0), strict=True):
        (folder / name).write_bytes(bytes(size))
    problems, check = checked([ask(n, n) for n in ("wide.avi", *names, "tall.avi", *names)])
    assert sentences(problems, folder) == [
        f"HERE/{names[0]}: the video decoder crashed on it (2 questions)",
        f"HERE/{names[1]}: the video decoder does not finish reading it (2 questions)",
    ]
    assert check.counts.checked == 4


@pytest.mark.usefixtures("read_clips")
def test_json_has_where_and_why(checked, folder) -> None:
    records = [problem.record for problem in checked([b"{", ask(1, "gone"), ask(2, "text")])[0]]
    assert json.loads(json.dumps(records)) == records
    assert [r["error"]["kind"] for r in records] == ["record", "clip", "clip"]
    assert [(r["line"], r["video"], r["path"], r["questions"]) for r in records] == [
        (1, None, None, 1),
        (2, "gone", None, 1),
        (3, "text", str(folder / "text.mp4"), 1),
    ]
    assert records[1]["error"]["message"].endswith("; name its folder with --video-dir")


@pytest.mark.usefixtures("read_clips")
def test_repeated_ids_are_a_notice(checked) -> None:
    assert checked([ask(1), ask(1), ask(2)])[1].notices == [
        "ids of questions repeat: the format qa puts the video before them"
    ]
    assert not checked([{"video": "wide.avi", "question": "Why?"}] * 3)[1].notices


@pytest.mark.usefixtures("read_clips")
def test_nothing_is_written(checked, folder) -> None:
    before = set(folder.iterdir())
    for output in (None, str(folder / "a.csv"), str(folder / "a.jsonl")):
        checked([ask(1), b"{"], output=output)
    assert set(folder.iterdir()) == before | {folder / "q.jsonl"}


@pytest.mark.parametrize(
    ("output", "why"),
    [("text.mp4", "already exists"), ("q.jsonl", "the file of the questions"), (".", "a folder")],
)
def test_output_that_a_run_would_refuse_is_refused(checked, folder, output, why) -> None:
    with pytest.raises(UsageError, match=why):
        checked([ask(1)], output=str(folder / output), output_format="csv")


def test_file_that_holds_no_questions_is_refused(folder) -> None:
    with pytest.raises(ClipError, match="is not a file of questions"):
        Check(Job(str(folder / "text.mp4"), settings_of()))
