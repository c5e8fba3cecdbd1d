"""The commands of `docs/benchmarks.md` on a made set in each layout: check, answer, score."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

pytest.importorskip("openai")

from pandacli.cli.entry import run
from pandacli.evaluation.judge import load_prompts
from pandacli.evaluation.scoring import JUDGE_SCORE, JUDGED, PUBLISHED
from tests.evaluation.benchmark_sets import (
    ANSWERED,
    CLIPS,
    DAMAGED,
    GENERATIVE,
    LAYOUTS,
    MISSING,
    QUESTIONS,
    ZERO_SHOT,
    draw_clips,
    make_set,
    predictions,
)
from tests.fake_judge import FakeJudge, fake_judge

Eval = Callable[..., list[dict[str, Any]]]
Capture = pytest.CaptureFixture[str]

TROUBLES = {1: 429, 2: 500, 3: "nonsense", 4: "drop", 5: "slow", 6: "tear", 8: 503, 9: "empty"}
"""What the judge does with these requests before it behaves."""

ASPECTS = {
    "generic": ("correctness", "detail", "context"),
    "temporal": ("temporal",),
    "consistency": ("consistency",),
}

# runs `panda` with each list of arguments, in one process, because imports take longest
ALL_COMMANDS = """
import json, sys
from pandacli.cli.entry import run

if __name__ == "__main__":
    print(json.dumps([run(arguments) for arguments in json.loads(sys.argv[1])]))
"""


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    path = os.pathsep.join(filter(None, sys.path))
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set in each layout, checked, and answered by `tiny`."""
    folder = tmp_path_factory.mktemp("sets")
    clips = draw_clips(tmp_path_factory.mktemp("clips"))
    checks, runs = [], []
    for name, layout in LAYOUTS.items():
        make_set(name, folder, clips)
        command = ["batch", layout.questions, "--video-dir", layout.videos]
        checks.append([*command, "--check", "--json"])
        runs.append([*command, "--model", "tiny", "--output-format", layout.output])
    runs += [[*runs[0], "--shard", shard] for shard in ("1/2", "2/2")]
    done = subprocess.run(
        [sys.executable, "-c", ALL_COMMANDS, json.dumps([*checks, *runs])],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=environment(),
    )
    *problems, codes = map(json.loads, done.stdout.splitlines())
    assert codes[: 2 * len(LAYOUTS)] == [1] * 2 * len(LAYOUTS)  # some clips cannot be used
    assert max(codes[2 * len(LAYOUTS) :]) == 1
    unusable = [
        layout.video_name.format(number)
        for layout in LAYOUTS.values()
        for number in (MISSING, DAMAGED)
    ]
    assert [problem["video"] for problem in problems] == unusable
    assert all(name in done.stderr for name in unusable)
    return folder


def answers(name: str) -> str:
    """The results of a set, in our format."""
    return LAYOUTS[name].questions.replace(".json", ".answers.jsonl")


def official(name: str) -> str:
    """The results of a set, as the official scripts read them."""
    kind = LAYOUTS[name].output.removesuffix("-lines")
    return LAYOUTS[name].questions.replace(".json", f".answers.{kind}.jsonl")


def judged(question: str, answer: str, prediction: str) -> dict[str, Any]:
    """What the judge says: anything, but always the same."""
    number = crc32(f"{question} {answer} {prediction}".encode())
    return {"pred": ("yes", "no")[number % 2], "score": number // 2 % 6}


def grade(text: str) -> dict[str, Any]:
    """`judged` for a message of the judge."""
    lines = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    question = lines.get("Question") or lines["First question"] + lines["Second question"]
    both = lines.get("Answer to the first question", "") + lines.get(
        "Answer to the second question", ""
    )
    return judged(question, lines["Reference answer"], lines.get("Predicted answer") or both)


@pytest.fixture
def panda_eval(sets: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Eval:
    """`panda eval` in this process: the scores of each file."""
    monkeypatch.chdir(sets)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def run_eval(judge: FakeJudge, replies: Path, *arguments: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert run(evaluation(judge, replies, *arguments)) == 1  # some have no answer
        files: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["files"]
        return files

    return run_eval


def evaluation(judge: FakeJudge, replies: Path, *arguments: str, jobs: int = 4) -> list[str]:
    """The arguments of `panda` that score files by a judge."""
    how = ("--judge", "judge", "--judge-url", judge.url, "--judge-jobs", str(jobs))
    return ["eval", *arguments, *how, "--judge-replies", str(replies), "--json"]


def means(file: dict[str, Any]) -> dict[str, float]:
    return {name: value["mean"] for name, value in file["measures"].items()}


def expected_aspects(judge: FakeJudge) -> dict[str, float]:
    """The mean of each aspect over all questions, from what the judge has said."""
    tasks = {system: task for task, (system, _) in load_prompts().items()}
    latest = {json.dumps(messages[:2]): (messages, verdict) for messages, verdict in judge.said}
    sums: dict[str, int] = {}
    for messages, verdict in latest.values():
        task = tasks[messages[0]["content"]]
        sums[task] = sums.get(task, 0) + verdict["score"]
    return {task: pytest.approx(total / QUESTIONS, abs=1e-6) for task, total in sums.items()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_question_has_a_result_and_bad_clips_are_named(sets: Path, name: str) -> None:
    layout = LAYOUTS[name]
    lines = [json.loads(line) for line in (sets / answers(name)).read_text().splitlines()]
    assert len(lines) == QUESTIONS * len(layout.fields)
    said = {line["video_name"]: line["error"]["message"] for line in lines if "error" in line}
    assert said.keys() == {layout.video_name.format(number) for number in (MISSING, DAMAGED)}
    assert "no file" in said[layout.video_name.format(MISSING)]
    assert "looks incomplete" in said[layout.video_name.format(DAMAGED)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_official_scripts_read_the_answers_as_literals(sets: Path, name: str) -> None:
    layout = LAYOUTS[name]
    entries = [ast.literal_eval(line) for line in (sets / official(name)).read_text().splitlines()]
    fields = ("pred1", "pred2") if name == "consistency" else ("pred",)
    expected = [
        (layout.video_name.format(number), prediction)
        for number in range(len(CLIPS))
        for prediction in predictions(number)
    ]
    for field in fields:
        assert [(entry["video_name"], entry[field]) for entry in entries] == expected
    wanted = ("question", "answer") if name in ZERO_SHOT else (*layout.fields, "A")
    assert all(isinstance(entry[field], str) for entry in entries for field in wanted)


def test_joined_shards_are_the_answers_of_the_whole(sets: Path) -> None:
    for path in (sets / answers("MSVD-QA"), sets / official("MSVD-QA")):
        suffix = path.name.removeprefix("test_q.answers")
        parts = [path.with_name(f"test_q.answers.{n}-of-2{suffix}") for n in (1, 2)]
        joined = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
        whole = [json.loads(line) for line in path.read_text().splitlines()]
        for entry in (*joined, *whole):
            entry.pop("seconds", None)
        assert sorted(map(str, joined)) == sorted(map(str, whole))


def official_count(path: Path, folder: Path) -> tuple[int, int, int]:
    """How the official script counts: yes, no and the sum of the scores, in a file a question."""
    for line in path.read_text().splitlines():
        entry = ast.literal_eval(line)
        asked = {"q": entry["question"], "a": entry["answer"], "pred": entry["pred"]}
        with (folder / f"{entry['id']}.json").open("x") as file:  # an id is unique
            json.dump([judged(*asked.values()), asked], file)
    kept = [json.loads(path.read_text())[0] for path in folder.glob("*.json")]
    yes, no = (sum(word in verdict["pred"] for verdict in kept) for word in ("yes", "no"))
    return yes, no, sum(int(verdict["score"]) for verdict in kept)


@pytest.mark.parametrize("name", ZERO_SHOT)
def test_scores_are_those_of_the_judge_over_all_questions(
    sets: Path, tmp_path: Path, panda_eval: Eval, name: str
) -> None:
    replies = tmp_path / "replies.jsonl"
    with fake_judge(lambda number: TROUBLES.get(number, "ok"), grade) as judge:
        questions = ("--questions", LAYOUTS[name].questions)
        [file] = panda_eval(judge, replies, answers(name), *questions)
        asked = len(judge.requests)
        [from_official] = panda_eval(judge, replies, official(name), *questions)
    assert len(judge.requests) == asked  # the same cases
    said = [verdict for _, verdict in judge.said]
    yes = sum(verdict["pred"] == "yes" for verdict in said)
    score = sum(verdict["score"] for verdict in said)
    # the official count has the same verdicts, but not the questions without an answer
    assert official_count(sets / official(name), tmp_path) == (yes, ANSWERED - yes, score)
    for each in (file, from_official):
        measured = means(each)
        assert measured[JUDGED] == pytest.approx(yes / QUESTIONS, abs=1e-6)
        assert measured[JUDGE_SCORE] == pytest.approx(score / QUESTIONS, abs=1e-6)
        assert measured["exact match"] == len(CLIPS) / QUESTIONS  # the colours
        assert each["published"] == PUBLISHED[name]
        assert (each["questions"], each["answered"]) == (QUESTIONS, ANSWERED)
        videos = {LAYOUTS[name].video_name.format(number) for number in (MISSING, DAMAGED)}
        assert {unanswered["video"] for unanswered in each["unanswered"]} == videos


@pytest.mark.parametrize("path", [answers, official], ids=["ours", "official"])
def test_the_generative_set_has_the_five_aspects_over_all_questions(
    tmp_path: Path, panda_eval: Eval, path: Callable[[str], str]
) -> None:
    questions = [f"--questions={LAYOUTS[name].questions}" for name in GENERATIVE]
    with fake_judge(lambda number: TROUBLES.get(number, "ok"), grade) as judge:
        files = panda_eval(judge, tmp_path / "r.jsonl", *map(path, GENERATIVE), *questions)
    for name, file in zip(GENERATIVE, files, strict=True):
        assert tuple(file["measures"]) == ASPECTS[name]
        assert (file["questions"], file["answered"]) == (QUESTIONS, ANSWERED)
        assert file["benchmark"] == "Video-ChatGPT"
    assert {m: v for file in files for m, v in means(file).items()} == expected_aspects(judge)
    assert len(judge.said) == 5 * ANSWERED


def test_resumes_after_sigkill_and_pays_for_no_kept_reply_twice(
    sets: Path, tmp_path: Path, panda_eval: Eval
) -> None:
    replies, files, jobs = tmp_path / "replies.jsonl", [*map(answers, GENERATIVE)], 2
    begun = 0

    def behave(number: int) -> str | int:
        return TROUBLES.get(number - begun, "ok") if begun else "slow"

    with fake_judge(behave, grade) as judge:
        command = [sys.executable, "-m", "pandacli"]
        command += evaluation(judge, replies, *files, jobs=jobs)
        killed = subprocess.Popen(command, cwd=sets, env=environment(), stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not replies.exists() or len(replies.read_bytes().splitlines()) < 5:
            assert killed.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        time.sleep(0.5)  # requests in flight reach the judge, whose replies are lost
        kept, paid, begun = replies.read_bytes().count(b"\n"), len(judge.said), len(judge.requests)
        resumed = panda_eval(judge, replies, *files)
    asked_again = {json.dumps(request["messages"][:2]) for request in judge.requests[begun:]}
    assert len(asked_again) == 5 * ANSWERED - kept
    assert paid - kept <= jobs
    assert len(judge.said) == 5 * ANSWERED + paid - kept
    assert {m: v for file in resumed for m, v in means(file).items()} == expected_aspects(judge)
