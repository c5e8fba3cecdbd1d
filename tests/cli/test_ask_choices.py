"""`panda ask --choice` with `tiny`: what is scored, shown and refused."""

import json
import os
from pathlib import Path

import pytest

from tests.cli.emulator import Emulator

CLIP = str(Path(__file__).parents[2] / "pandacli" / "assets" / "demo.mp4")
TINY = ("--model", "tiny", "--cache-size", "0")
STAR, CIRCLE = "Is there a star?", "Is there a circle?"


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


def test_json_has_the_statistics_of_all_questions(module_panda):
    done = module_panda("ask", CLIP, STAR, CIRCLE, *TINY, "--choices", " No. | Yes. ", "--json")
    record = json.loads(done.stdout)
    texts = [[choice["text"] for choice in answer["choices"]] for answer in record["answers"]]
    assert texts == [["No.", "Yes."]] * 2
    assert record["stats"]["passes"] == 1
    assert record["stats"]["tokens"] < 40
    assert record["stats"]["scoring_seconds"] > 0


def test_a_terminal_gets_the_answer_and_bars(environment):
    texts = ["--choice", "Yes.", "--choice", "視頻中有一隻熊貓" * 5, "--choice", "a\x1b[31mb"]
    terminal = Emulator("ask", CLIP, STAR, *TINY, *texts, environment=environment)
    shown = terminal.until(r"a\\x1b\[31mb +\d+\.\d%")
    assert terminal.end() == 0
    answer, *bars = [line for line in shown.splitlines() if line.strip()]
    assert answer == "Yes."
    assert len(bars) == 3
    assert bars[0].split()[:2] == ["Yes.", "100.0%"]
