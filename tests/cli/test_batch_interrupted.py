"""`panda batch` in a terminal of 80 columns, interrupted by Ctrl-C and SIGTERM."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cli.emulator import SLOW_MODEL, Emulator

QUESTIONS = [f"What happens {n}?" for n in range(8)]
BLOCKED = Path(__file__).with_name("blocked.py")
CURSOR_AWAY = b"\x1b[?25l"
CURSOR_BACK = b"\x1b[?25h"


@pytest.fixture
def questions(home, clip):
    """Questions about two clips, of which one has a name and a question to be afraid of."""
    hostile = home / "[bold]\x1b]0;pwned\x07.mp4"
    hostile.write_bytes(clip.read_bytes())
    videos = [str(clip), hostile.name]
    records = [
        {"video": videos[n // 4], "question": f"\x1b[31m[red]{question}\x07", "id": n}
        for n, question in enumerate(QUESTIONS)
    ]
    path = home / "q.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def start(environment, checkpoint, questions):
    """Starts `panda batch`; what is still running at the end is ended."""
    started = []
    arguments = ["batch", str(questions), "--model", str(checkpoint), "--max-tokens", "12"]

    def batch(slow=0.2):
        variables = environment | {"SLOW_MODEL": str(slow)}
        terminal = Emulator(*arguments, "--batch-size", "2", environment=variables)
        started.append(terminal)
        return terminal

    yield batch
    for terminal in started:
        terminal.process.close(force=True)


def lines_of(questions):
    path = questions.with_name("q.answers.jsonl")
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def left(terminal):
    """How many questions it says are left."""
    said = re.search(r"^panda: (\d) of 8 questions are left; resume with:", terminal.text(), re.M)
    return int(said[1])


def test_first_ctrl_c_finishes_answers_in_flight(start, questions):
    terminal = start()
    terminal.until(r"^clips 0/2")
    terminal.until(r"^Q ")
    before = len(lines_of(questions))
    terminal.keys("\x03")
    terminal.until("finishing the answers in flight; Ctrl-C again stops at once")
    assert terminal.end() == 130
    after = len(lines_of(questions))
    assert before < after < 8
    assert left(terminal) == 8 - after
    assert b"Traceback" not in terminal.sent
    assert terminal.sent.rindex(CURSOR_BACK) > terminal.sent.rindex(CURSOR_AWAY)

    again = start(slow=0)
    assert again.end() == 0
    assert f"answered earlier  {after}" in again.text()
    assert sorted(line["id"] for line in lines_of(questions)) == list(range(8))
    assert b"\x1b[31m" not in again.sent + terminal.sent
    assert b"\x1b]0;" not in again.sent + terminal.sent


def test_second_ctrl_c_stops_at_once(start, questions):
    terminal = start(slow=0.5)
    terminal.until(r"^Q ")
    before = len(lines_of(questions))
    terminal.keys("\x03")
    terminal.until("finishing the answers in flight")
    terminal.keys("\x03")
    assert terminal.end() == 130
    assert len(lines_of(questions)) == before
    assert left(terminal) == 8 - before


def test_ctrl_c_stops_at_once_while_frames_are_read(environment, checkpoint, questions):
    """The decoder never returns, so that the key cannot be pressed too late."""
    terminal = Emulator(
        *("batch", str(questions), "--model", str(checkpoint)),
        environment=environment
        | {"BLOCKED": "decoder", "BLOCKED_AT": str(questions.with_name("blocked"))},
        script=BLOCKED,
    )
    try:
        terminal.until("reading frames")
        terminal.keys("\x03")
        assert terminal.end() == 130
    finally:
        terminal.process.close(force=True)
    assert left(terminal) == 8  # said by the main thread, so it was not ended by the watchdog
    assert b"finishing" not in terminal.sent
    assert b"Traceback" not in terminal.sent


def test_sigterm_leaves_no_processes_or_temporary_files(start, questions):
    terminal = start()
    terminal.until(r"^Q ")
    processes = psutil.Process(terminal.process.pid).children(recursive=True)
    assert processes
    terminal.process.kill(signal.SIGTERM)
    assert terminal.end() == 143
    assert terminal.sent.rindex(CURSOR_BACK) > terminal.sent.rindex(CURSOR_AWAY)
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []
    assert lines_of(questions)


def test_closed_pipe_ends_the_batch_without_a_message(environment, home, checkpoint, questions):
    command = [sys.executable, str(SLOW_MODEL), "batch", str(questions), "-o", "-"]
    with subprocess.Popen(
        [*command, "--model", str(checkpoint), "--max-tokens", "4", "--batch-size", "1"],
        env=environment | {"SLOW_MODEL": "0.1"},
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert json.loads(process.stdout.readline())["id"] == 0
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode == 141
    assert "Traceback" not in said
    assert "rror" not in said
