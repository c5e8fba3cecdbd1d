"""`/when` and `/every` in `panda chat`, with `tiny`, over a pipe and in a terminal."""

import json
import re
import sys
from pathlib import Path

import pytest

from pandacli.cli.frames import CLIP
from tests.cli.conftest import Run, _runner
from tests.cli.emulator import Emulator

pytestmark = pytest.mark.slow

CIRCLE, WHAT = "Is there a red circle?", "What happens?"
TINY = ("--model", "tiny")


@pytest.fixture
def odd_film(environment: dict[str, str], home: Path) -> Run:
    """`panda`, interrupted at a window; see `odd_film.py`."""
    script = Path(__file__).with_name("odd_film.py")
    return _runner([sys.executable, str(script)], environment, home)


def test_lists_are_those_of_the_commands(panda: Run) -> None:
    sent = f"/when {CIRCLE}\n/every 3s {WHAT}\n/clip #2\n/every 1s {WHAT}\n"
    said = panda("chat", str(CLIP), *TINY, stdin=sent.encode())
    assert (said.returncode, said.stderr) == (0, b"")
    segments, _, windows, end = said.stdout.decode().split("\n\n")
    assert end == ""
    second = ("--from", "3", "--to", "6")
    for text, arguments in (
        (segments, ("when", str(CLIP), CIRCLE)),
        (windows, ("ask", str(CLIP), WHAT, "--every", "1s", *second)),
    ):
        done = panda(*arguments, *TINY)
        numbered = enumerate(done.stdout.decode().splitlines(), 1)
        assert text.splitlines() == [f"#{number}  {line}" for number, line in numbered]


def test_ctrl_c_over_a_pipe_keeps_what_is_there(odd_film: Run) -> None:
    sent = f"/every 0.5 {WHAT}\n{WHAT}\n".encode()
    done = odd_film("chat", str(CLIP), *TINY, stdin=sent, INTERRUPTED="9")
    assert done.returncode == 130
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("#1  0:00 - 0:00.5  ")
    assert done.stderr.decode() == f"panda: interrupted after {len(lines)} of 16 windows\n"


def test_ctrl_c_in_a_terminal_keeps_the_list_and_the_chat(
    environment: dict[str, str], home: Path
) -> None:
    variables = {"SLOW_MODEL": "0.1", "XDG_STATE_HOME": str(home / "state")}
    terminal = Emulator(
        "chat", str(CLIP), "--no-frames", *TINY, environment=environment | variables, lines=40
    )
    try:
        terminal.until("of 2,048 tokens")
        terminal.ask(f"/every 0.5 {WHAT}")
        terminal.until("^#8  0:03.5 - 0:04")
        terminal.keys("\x03")
        shown = terminal.until("^stopped")
        assert re.search(r"interrupted after \d+ of 16 windows", shown)
        assert shown.count("/clip #1 opens the first of these") == 1
        terminal.ask("/clip #8")
        terminal.until(r"demo\.mp4: 0:03\.5 to 0:04 of 0:08")
        terminal.ask(CIRCLE)
        terminal.until(r"\n(Yes|No)\.\n")
        terminal.keys("\x04")
        assert terminal.end() == 0
    finally:
        terminal.process.close(force=True)
    (log,) = (home / "state" / "panda" / "conversations").glob("*.json")
    record = json.loads(log.read_text())
    assert [turn["question"] for turn in record["turns"]] == [CIRCLE]
    assert (record["from"], record["to"]) == (3.5, 4.0)
