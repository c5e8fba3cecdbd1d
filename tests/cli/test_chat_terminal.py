"""`panda chat` with `tiny` in an emulated terminal."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests.cli.emulator import Emulator

CLIP = Path(__file__).parents[2] / "pandacli" / "assets" / "demo.mp4"
QUESTION, ANSWER = "What happens?", "A red circle moves right."


@pytest.fixture
def chat(environment, home):
    """Starts `panda chat`; what is still running at the end is ended."""
    started = []

    def start(*arguments, columns=80, lines=24, slow=0.0, slow_frames=0.0):
        variables = {"SLOW_MODEL": str(slow), "SLOW_FRAMES": str(slow_frames)}
        variables |= {"XDG_STATE_HOME": str(home / "state")}
        terminal = Emulator(
            "chat",
            *arguments,
            "--model",
            "tiny",
            environment=environment | variables,
            columns=columns,
            lines=lines,
        )
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        terminal.process.close(force=True)


def log_of(home):
    (path,) = (home / "state" / "panda" / "conversations").glob("*.json")
    return [turn["question"] for turn in json.loads(path.read_text())["turns"]]


def test_whole_conversation_in_a_terminal(chat, home):
    terminal = chat(str(CLIP))
    shown = terminal.until(r"^>")
    assert re.search(r"demo\.mp4: 0:08, 640x360, 25 fps", shown)
    assert "Loading tiny. Type your question now" in shown
    assert "0:07" in shown, "the frames have their times"
    terminal.until("tiny · [0-9]+ of 2,048 tokens")
    terminal.ask(QUESTION)
    terminal.until(re.escape(ANSWER))
    terminal.ask("Is there a circle?")
    terminal.until(r"^> Is there a circle\?\n\w+\.$")
    terminal.ask("/undo")
    terminal.until("took back: Is there a circle")
    terminal.ask("/choices Yes.|No.")
    terminal.until("tiny · 2 choices")
    terminal.ask("Is there a star?")
    terminal.until(r"^> Is there a star\?\nYes\.\n +Yes\. +\d+\.\d% +█+\n +No\. +\d\.\d%.*$")
    terminal.ask("/undo")
    terminal.until("took back: Is there a star")
    terminal.ask("/undno")
    terminal.until(r"did you mean /undo\?")
    terminal.keys("\x04")
    assert terminal.end() == 0
    assert log_of(home) == [QUESTION]


def test_question_is_accepted_while_the_model_loads(chat):
    terminal = chat(str(CLIP), "--no-frames")
    terminal.until(r"^>")
    terminal.ask(QUESTION)
    shown = terminal.until(re.escape(ANSWER))
    assert "▄" not in shown


def test_early_typing_appears_only_in_the_prompt(chat):
    terminal = chat(str(CLIP), "--no-frames", slow=0.02, slow_frames=1.0)
    terminal.until("reading frames")
    terminal.ask(QUESTION)
    shown = terminal.until(re.escape(ANSWER))
    assert shown.count(QUESTION) == 1
    assert f"\n> {QUESTION}\n" in shown


def test_question_taller_than_the_screen_leaves_its_beginning_and_no_toolbar(chat, home):
    terminal = chat(str(CLIP), "--no-frames", lines=12)
    terminal.until("of 2,048 tokens")
    question = "\n".join(f"line {number}" for number in range(1, 41))
    terminal.keys(f"\x1b[200~{question}\x1b[201~")
    terminal.until("line 40")
    # what terminals clear from their first line on, they keep among the lines above it
    assert "line" not in terminal.screen.display[0]
    terminal.keys("\r")
    shown = terminal.until(r"\[\d+ more lines\]\n\w+(.|\n)*^>")
    assert shown.count(" of 2,048 tokens") <= 1, "that of the prompt"
    assert "> line 1\n  line 2\n" in shown
    terminal.keys("\x04")
    assert terminal.end() == 0
    assert log_of(home) == [question]


def test_ctrl_c_stops_the_answer_but_not_the_conversation(chat, home):
    terminal = chat(str(CLIP), "--no-frames", slow=0.3)
    terminal.until("of 2,048 tokens")
    terminal.ask(QUESTION)
    terminal.until("^A red")
    terminal.keys("\x03")
    shown = terminal.until("^stopped")
    assert ANSWER not in shown
    terminal.ask("Is there a circle?")
    terminal.until(r"^> Is there a circle\?\n\w+\.$")
    terminal.keys("\x04")
    assert terminal.end() == 0
    assert log_of(home) == [QUESTION, "Is there a circle?"]


def test_ctrl_c_clears_the_line_and_twice_on_an_empty_line_leaves(chat):
    terminal = chat(str(CLIP), "--no-frames")
    terminal.until(r"^>")
    terminal.keys("half a ques")
    terminal.until("half a ques")
    terminal.keys("\x03")
    assert "half a ques" not in terminal.until("^>$")
    terminal.keys("\x03")
    terminal.until("press Ctrl-C again to leave, or Ctrl-D\n>")
    terminal.keys("\x03")
    assert terminal.end() == 0


def test_resizing_to_sixty_columns_redraws(chat):
    terminal = chat(str(CLIP), "--no-frames")
    terminal.until("of 2,048 tokens")
    terminal.resize(60, 24)
    terminal.ask(QUESTION)
    shown = terminal.until(r"appears\.$")
    answer = shown[shown.index(ANSWER[:5]) :].splitlines()
    assert max(map(len, answer[:2])) <= 60
    assert all(
        part.endswith(("still.", "A", "yellow", "star", "appears.")) for part in answer[:2]
    ), shown


def test_continue_after_sigkill_has_every_answer(chat):
    first = chat(str(CLIP), "--no-frames", slow=0.1)
    first.until(r"^>")
    first.ask(QUESTION)
    first.until(rf"{re.escape(ANSWER)}(.|\n)*\n>")
    first.ask("What moves?")
    # the question has been taken: what the prompt shows while it is typed is not enough
    first.until(r"^> What moves\?\n.*(thinking|The )")
    first.process.kill(signal.SIGKILL)
    first.end()
    again = chat("--continue", "--no-frames")
    shown = again.until("of 2,048 tokens")
    assert f"> {QUESTION}" in shown
    assert ANSWER in shown
    assert "What moves?" not in shown
    again.keys("\x1b[A")
    again.until(rf"(?s){re.escape(ANSWER)}.*^> What moves\?")
    again.keys("\x03")
    again.ask("Is there a circle?")
    again.until(r"^> Is there a circle\?\n\w+\.$")


def test_typing_shows_completions_and_continuation_lines(chat):
    terminal = chat(str(CLIP), "--no-frames")
    terminal.until(r"^>")
    terminal.keys("/re")
    terminal.until(r"/retry(.|\n)*/reset|/reset(.|\n)*/retry")
    terminal.keys("\x03What\x1b\rhappens?")
    terminal.until(r"^> What\n  happens\?")


def test_control_characters_are_escaped(chat, home):
    name = "[bold]\x1b]0;pwned\x07.mp4"
    (home / name).write_bytes(CLIP.read_bytes())
    terminal = chat(str(home / name), "--no-frames")
    terminal.until("^>")
    assert r"[bold]\x1b]0;pwned\x07.mp4" in terminal.text()
    assert b"\x1b]0;pwned" not in terminal.sent
