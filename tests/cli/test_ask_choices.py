"""Choices in `panda ask` and `panda batch` with `tiny`: what is scored, shown and refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pandacli.batch.readers.choices import Choices
from tests.cli.emulator import Emulator

CLIP = str(Path(__file__).parents[2] / "pandacli" / "assets" / "demo.mp4")
TINY = ("--model", "tiny", "--cache-size", "0")
STAR, CIRCLE = "Is there a star?", "Is there a circle?"


@pytest.fixture(scope="module")
def scored(module_panda) -> dict[str, Any]:
    """The JSON of two questions with choices."""
    done = module_panda("ask", CLIP, STAR, CIRCLE, *TINY, "--choices", " No. | Yes. ", "--json")
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def test_options_from_the_environment_change_nothing(module_panda):
    variables = {"PANDA_TEMPERATURE": "2", "PANDA_SEED": "1", "PANDA_MAX_TOKENS": "1"}
    variables |= {"PANDA_STOP": "Y", "PANDA_LOGPROBS": "1"}
    done = module_panda("ask", CLIP, STAR, *TINY, "--choices", "No.|Yes.", **variables)
    assert (done.stdout, done.stderr, done.returncode) == (b"Yes.\n", b"", 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--temperature", "0"], "--temperature has no effect on choices"),
        (["--seed", "0"], "--seed has no effect on choices"),
        (["--max-tokens", "5"], "--max-tokens has no effect on choices"),
        (["--stop", "END"], "--stop has no effect on choices"),
        (["--json", "--logprobs"], "--logprobs is for answers that are generated"),
        (["--choice", " no"], "'no' is given twice"),
        (["--choice", b"\xff"], "the choice is not UTF-8 text"),
    ],
)
def test_what_has_no_effect_or_cannot_be_scored_is_refused_at_once(module_panda, options, said):
    done = module_panda("ask", CLIP, STAR, "--choices", "yes|no", *map(os.fsencode, options))
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"panda: {'the choices: ' * ('twice' in said)}{said}")


def test_answers_in_a_pipe_take_one_line_each(module_panda):
    choices = ["--choice", "Yes.", "--choice", "two\nlines"]
    done = module_panda("ask", CLIP, "-", CIRCLE, *TINY, *choices, "--stats", stdin=STAR.encode())
    assert done.stdout.splitlines() == [b"Yes.", b"Yes."]
    rows = dict(line.split("  ", 1) for line in done.stderr.decode().splitlines())
    assert list(rows) == ["frames", "tokens", "scores", "memory"]
    assert rows["tokens"].endswith(" questions and choices, in 1 pass")
    assert " scoring" in rows["scores"]


def test_json_has_the_probability_of_every_choice(scored):
    for answer in scored["answers"]:
        assert answer["answer"] == "Yes."
        assert [choice["text"] for choice in answer["choices"]] == ["No.", "Yes."]
        assert sum(choice["probability"] for choice in answer["choices"]) == pytest.approx(1)
        assert 0.5 < answer["coverage"] <= 1


def test_json_has_the_statistics_of_all_questions(scored):
    assert scored["stats"]["passes"] == 1
    assert scored["stats"]["tokens"] < 40
    assert scored["stats"]["scoring_seconds"] > 0


def test_logprobs_of_an_answer_sum_to_the_score_of_the_same_choice(module_panda, scored):
    done = module_panda("ask", CLIP, STAR, *TINY, "--json", "--logprobs")
    (answer,) = json.loads(done.stdout)["answers"]
    tokens = answer["logprobs"]["tokens"]
    total = sum(token["logprob"] for token in tokens)
    assert "".join(token["token"] for token in tokens) == f" {answer['answer']}</s>"
    assert answer["logprobs"]["mean"] == pytest.approx(total / len(tokens))
    assert scored["answers"][0]["choices"][1]["logprob"] == pytest.approx(total, abs=1e-4)


def test_a_terminal_gets_the_answer_and_bars(environment):
    texts = ["--choice", "Yes.", "--choice", "視頻中有一隻熊貓" * 5, "--choice", "a\x1b[31mb"]
    terminal = Emulator("ask", CLIP, STAR, *TINY, *texts, environment=environment)
    shown = terminal.until(r"a\\x1b\[31mb +\d+\.\d%")
    assert terminal.end() == 0
    answer, *bars = [line for line in shown.splitlines() if line.strip()]
    assert answer == "Yes."
    assert len(bars) == 3
    assert bars[0].split()[:2] == ["Yes.", "100.0%"]


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
    done = module_panda("ask", CLIP, STAR, *options)  # of a model that is not there
    assert done.returncode == 2
    assert said in done.stderr.decode()


def test_batch_answers_choices_by_likelihood_or_generation(module_panda, tmp_path):
    def entry(question: str, choices: list[str], answer: str) -> dict[str, Any]:
        return {"video": CLIP, "question": question, "candidates": choices, "answer": answer}

    entries = [
        entry(STAR, ["No.", "Yes."], "Yes."),
        entry("Which way does the red circle move?", ["Left.", "Right.", "Up."], "Right."),
        {"video": CLIP, "question": STAR, "answer": "Yes."},
    ]
    path, answers = tmp_path / "q.jsonl", tmp_path / "q.answers.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in entries))
    assert module_panda("batch", str(path), *TINY[:2]).returncode == 0
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [len(line.get("choices", [])) for line in lines] == [2, 3, 0]
    assert [line["answer"] for line in lines] == ["Yes.", "Right.", "Yes."]
    measures = json.loads(module_panda("eval", str(answers), "--json").stdout)["files"][0]
    assert measures["measures"]["choice accuracy"]["mean"] == 1
    assert measures["measures"]["exact match"] == {"mean": 1, "count": 1, "interval": None}
    assert measures["calibration_error"] < 0.05

    assert module_panda("batch", str(path), *TINY[:2], "--choose", "generate").returncode == 0
    generated = [json.loads(line) for line in answers.read_text().splitlines()][3:]
    assert len(generated) == 2, "the open question is answered"
    for line, asked in zip(generated, entries, strict=False):
        found = Choices(tuple(asked["candidates"])).find(line["reply"])
        assert line["answer"] == (line["reply"] if found is None else asked["candidates"][found])
