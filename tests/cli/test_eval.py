"""`panda eval` and `--choice`, in processes of their own."""

import json
from pathlib import Path
from typing import Any

import pytest

from pandacli.batch.readers.choices import Choices
from pandacli.cli.frames import CLIP
from tests.fake_judge import fake_judge

TINY = ("--model", "tiny")
STAR = "Is there a star?"


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


def test_the_likeliest_choice_is_the_answer(module_panda):
    asked = ("ask", str(CLIP), STAR, "Which way does the red circle move?", *TINY)
    done = module_panda(*asked, "--choice", "No.", "--choices", "Yes.|Right.|Left.")
    assert done.stdout.decode().splitlines() == ["Yes.", "Right."]
    assert done.stderr == b""


def test_json_has_the_probability_of_every_choice(module_panda):
    done = module_panda("ask", str(CLIP), STAR, *TINY, "--choices", "No.|Yes.", "--json")
    (answer,) = json.loads(done.stdout)["answers"]
    assert answer["answer"] == "Yes."
    assert [choice["text"] for choice in answer["choices"]] == ["No.", "Yes."]
    assert sum(choice["probability"] for choice in answer["choices"]) == pytest.approx(1)
    assert 0.9 < answer["coverage"] <= 1


def test_logprobs_of_an_answer_sum_to_the_score_of_the_same_choice(module_panda):
    asked = ("ask", str(CLIP), STAR, *TINY, "--json")
    (answer,) = json.loads(module_panda(*asked, "--logprobs").stdout)["answers"]
    tokens = answer["logprobs"]["tokens"]
    total = sum(token["logprob"] for token in tokens)
    assert "".join(token["token"] for token in tokens) == f" {answer['answer']}</s>"
    assert answer["logprobs"]["mean"] == pytest.approx(total / len(tokens))
    scored = json.loads(module_panda(*asked, "--choices", "No.|Yes.").stdout)["answers"][0]
    assert scored["choices"][1]["logprob"] == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--choice", "yes"], "only one is given"),
        (["--choice", "yes", "--choice", "yes"], "'yes' is given twice"),
        (["--choices", "yes||no"], "one is empty"),
        (["--logprobs"], "--logprobs is for JSON"),
    ],
)
def test_choices_that_cannot_be_scored_are_refused_at_once(module_panda, options, said):
    done = module_panda("ask", str(CLIP), STAR, *options)  # of a model that is not there
    assert done.returncode == 2
    assert said in done.stderr.decode()


def test_batch_answers_choices_and_eval_scores_them(module_panda, tmp_path):
    def entry(question: str, choices: list[str], answer: str) -> dict[str, Any]:
        return {"video": str(CLIP), "question": question, "candidates": choices, "answer": answer}

    entries = [
        entry(STAR, ["No.", "Yes."], "Yes."),
        entry("Which way does the red circle move?", ["Left.", "Right.", "Up."], "Right."),
        {"video": str(CLIP), "question": STAR, "answer": "Yes."},
    ]
    path, answers = tmp_path / "q.jsonl", tmp_path / "q.answers.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in entries))
    assert module_panda("batch", str(path), *TINY).returncode == 0
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [len(line.get("choices", [])) for line in lines] == [2, 3, 0]
    assert [line["answer"] for line in lines] == ["Yes.", "Right.", "Yes."]
    scored = json.loads(module_panda("eval", str(answers), "--json").stdout)["files"][0]
    assert scored["measures"]["choice accuracy"]["mean"] == 1
    assert scored["measures"]["exact match"] == {"mean": 1, "count": 1, "interval": None}
    assert scored["calibration_error"] < 0.05


def test_generated_choices_are_another_answer_of_the_same_record(module_panda, tmp_path):
    path, answers = tmp_path / "q.jsonl", tmp_path / "q.answers.jsonl"
    entry = {"video": str(CLIP), "question": STAR, "choices": ["No.", "Yes."]}
    path.write_text(json.dumps(entry) + "\n")
    for options in ((), ("--choose", "generate")):
        assert module_panda("batch", str(path), *TINY, *options).returncode == 0
    scored, generated = map(json.loads, answers.read_text().splitlines())
    assert "reply" not in scored
    found = Choices(("No.", "Yes.")).find(generated["reply"])
    assert generated["answer"] == (generated["reply"] if found is None else ("No.", "Yes.")[found])
