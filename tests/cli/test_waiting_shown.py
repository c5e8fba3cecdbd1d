"""What an emulated terminal shows while `tiny` loads and reads a prompt slowly."""

import json
import re
import time
from pathlib import Path

import pytest

from tests.cli.emulator import Emulator

CLIP = Path(__file__).parents[2] / "pandacli" / "assets" / "demo.mp4"
QUESTION = "What happens?"
PROMPT = "reading the prompt: tiny none torch cpu"


@pytest.fixture
def slow(environment, home):
    """Starts `panda` with a model each of whose layers or tensors takes some seconds."""
    started = []

    def start(*arguments, columns=80, layer=0.0, tensor=0.0):
        variables = {"SLOW_LAYER": str(layer), "SLOW_TENSOR": str(tensor)}
        variables |= {"XDG_STATE_HOME": str(home / "state")}
        command = (*arguments, "--model", "tiny", "--cache-size", "0")
        if "--every" in arguments:
            command = command[:-2]
        terminal = Emulator(*command, environment=environment | variables, columns=columns)
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        terminal.process.close(force=True)


def lines_with(terminal, pattern, enough, seconds=40):
    """Different lines that have a pattern, without a spinner, once they are enough."""
    found, deadline = [], time.monotonic() + seconds
    while len(found) < enough:
        terminal.read()
        assert time.monotonic() < deadline, f"only {found} in:\n{terminal.text()}"
        lines = [line[2:].rstrip() for line in terminal.screen.display]
        found += [line for line in lines if re.search(pattern, line) and line not in found]
    return found


def tokens(lines):
    """How many tokens of the prompt were read in each line."""
    return [int(re.search(r"(\d+) of 265", line)[1]) for line in lines]


@pytest.mark.parametrize("columns", [80, 40])
def test_prompt_shows_tokens_of_tokens_in_one_line(slow, home, columns):
    (home / "models").mkdir()
    (home / "models" / "durations.json").write_text(json.dumps({PROMPT: [5.0, 265]}))
    terminal = slow("ask", str(CLIP), QUESTION, "--max-tokens", "1", columns=columns, layer=0.4)
    lines = lines_with(terminal, "of 265", 7)
    assert len([line for line in terminal.screen.display if line.strip()]) == 1
    assert tokens(lines) == sorted(tokens(lines))
    assert len({*tokens(lines)}) > 3
    assert any(", 2 s" in line for line in lines)
    assert all("(last time 5 s)" in line for line in lines) == (columns == 80)
    assert terminal.end() == 0
    kept = json.loads((home / "models" / "durations.json").read_text())
    assert kept[PROMPT][0] != 5, "what it took this time is kept"


def test_load_shows_bytes_of_bytes(slow):
    terminal = slow("ask", str(CLIP), QUESTION, "--max-tokens", "1", tensor=0.03)
    early = lines_with(terminal, r"^loading tiny \d+ (kB )?of 9 MB", 3)
    late = lines_with(terminal, r"^loading tiny \d+ (kB )?of 9 MB, [2-9] s$", 3)
    assert not {*early} & {*late}


def test_chat_shows_the_prompt_under_its_input_and_before_the_first_word(slow):
    terminal = slow("chat", str(CLIP), "--no-frames", "--no-log", layer=0.6)
    below = lines_with(terminal, r"ny · reading the prompt \d+ of 265 tokens", 2)
    assert tokens(below) == sorted({*tokens(below)})
    terminal.ask(QUESTION)
    lines_with(terminal, r"^reading the (prompt|question) \d+ of \d+ tokens", 3)


def test_windows_show_their_prompts_above_the_bar(slow):
    terminal = slow("ask", str(CLIP), QUESTION, "--every", "4", "--max-tokens", "1", layer=0.4)
    lines_with(terminal, r"^reading the prompts? [\d,]+ of [\d,]+ tokens", 3)
