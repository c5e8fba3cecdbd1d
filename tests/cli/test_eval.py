"""`panda eval`, in processes of its own."""

import json
from pathlib import Path

import pytest

from tests.fake_judge import fake_judge


def predictions(path: Path, right: int = 3, count: int = 5) -> None:
    entries = [
        {
            "id": str(n),
            "video_name": f"v{n}",
            "question": f"what is {n}?",
            "answer": "dog",
            "pred": "dog" if n < right else "cat",
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_scores_go_to_stdout_and_what_is_missing_to_stderr(panda, home):
    predictions(home / "a.jsonl")
    with (home / "a.jsonl").open("a") as file:
        file.write('{"id": "last", "video_name": "v", "question": "who?", "answer": "dog"}\n')
    done = panda("eval", "a.jsonl")
    assert done.returncode == 1
    (row,) = [line for line in done.stdout.decode().splitlines() if "exact match" in line][:1]
    assert row.split()[2] == "50.0"
    assert done.stderr.decode() == "panda: 1 without an answer, which count as wrong: last\n"


def test_json_is_one_object(panda, home):
    predictions(home / "a.jsonl")
    done = panda("eval", "a.jsonl", "--json")
    (scored,) = json.loads(done.stdout)["files"]
    assert scored["measures"]["exact match"]["mean"] == 0.6
    assert done.stderr == b""


def test_a_report_is_three_files(panda, home):
    pytest.importorskip("matplotlib")
    predictions(home / "a.jsonl")
    done = panda("eval", "a.jsonl", "--report", "scores", "--quiet")
    assert (done.returncode, done.stderr) == (0, b"")
    names = sorted(path.name for path in (home / "scores").iterdir())
    assert names == ["plot.png", "report.md", "results.json"]


def test_a_judge_that_fails_on_a_question_is_exit_code_1(panda, home):
    pytest.importorskip("openai")
    predictions(home / "a.jsonl")
    with fake_judge(lambda n: 400 if n == 1 else "ok") as judge:
        options = ("--judge", "m", "--judge-url", judge.url, "--judge-jobs", "1", "--json")
        failed = panda("eval", "a.jsonl", *options)
        again = panda("eval", "a.jsonl", *options)
    assert (failed.returncode, again.returncode) == (1, 0)
    assert len(judge.requests) == 6
    (scored,) = json.loads(again.stdout)["files"]
    assert scored["measures"]["judged right"]["mean"] == 0.6


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none.jsonl"], 3, "there is no file none.jsonl"),
        (["a.jsonl", "--judge-url", "x"], 2, "--judge-url: 'x' is not an address"),
        (["a.jsonl", "--judge-url", "http://localhost:1/v1"], 2, "no judge is named"),
        (["a.jsonl", "--judge", "m"], 2, "there is no key for the judge"),
        (["a.jsonl", "--benchmark", "x"], 2, "there is no benchmark 'x'"),
        (["a.jsonl", "a.jsonl", "--compare", "a.jsonl"], 2, "are for one file of answers"),
        ([], 2, "ANSWERS is missing"),
    ],
)
def test_wrong_arguments_are_one_clear_line(panda, home, arguments, code, said):
    predictions(home / "a.jsonl")
    done = panda("eval", *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert said in done.stderr.decode()
