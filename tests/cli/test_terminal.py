"""`panda` in a pseudo-terminal: spinners, colours, and a terminal that is restored."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.emulator import Emulator

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


class Session:
    """A command whose stdout, stderr or both are a pseudo-terminal."""

    def __init__(self, arguments, environment, *, stdout_to_terminal=True):
        self.screen, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, str(FAKE_ENGINE), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=terminal if stdout_to_terminal else subprocess.PIPE,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        self.seen = b""

    def read(self, until=None, seconds=60):
        """Reads until some bytes are on the screen, or to the end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (until is None or until not in self.seen):
            if not select.select([self.screen], [], [], 0.1)[0]:
                continue
            try:
                chunk = os.read(self.screen, 65536)
            except OSError:  # Linux reports the end of a pseudo-terminal so
                break
            if not chunk:
                break
            self.seen += chunk
        assert until is None or until in self.seen
        return self.seen

    def finish(self):
        """Reads the rest; returns it with the exit code."""
        self.read()
        code = self.process.wait(60)
        os.close(self.screen)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self.seen, code


@pytest.fixture
def terminal(environment):
    """Starts the fake in a terminal; each slow step takes as long as `delay` says."""

    def start(*arguments, delay="0.05", stdout_to_terminal=True, **variables):
        variables = {"TERM": "xterm-256color", "FAKE_DELAY": delay} | variables
        return Session(arguments, environment | variables, stdout_to_terminal=stdout_to_terminal)

    return start


def test_every_slow_stage_has_a_spinner(terminal):
    seen, code = terminal("ask", "x.mp4", "why?").finish()
    assert code == 0
    places = [
        seen.index(words.encode())
        for words in ("reading frames…", "loading video-panda-7b…", "thinking…", "You asked:")
    ]
    assert places == sorted(places)


def test_quantising_shows_its_progress(terminal):
    seen, code = terminal("ask", "x.mp4", "why?", FAKE_QUANTISES="1").finish()
    assert code == 0
    assert "quantising video-panda-7b once, 50 %…".encode() in seen


def test_spinner_is_gone_before_the_answer(terminal):
    seen, _ = terminal("ask", "x.mp4", "why?").finish()
    before, answer = seen.split(b"You asked:")
    assert before.endswith(b"\x1b[2K")  # the line of the notice is erased
    assert before.rindex(SHOW_CURSOR) > before.rindex(HIDE_CURSOR)
    assert answer == b" why?\r\n"


def test_words_are_printed_as_they_are_decoded(terminal):
    session = terminal("ask", "x.mp4", "why?", delay="0.5")
    session.read(until=b"You")
    assert b"why?" not in session.seen
    assert session.process.poll() is None
    seen, _ = session.finish()
    assert seen.endswith(b"You asked: why?\r\n")


def test_quiet_shows_no_spinner(terminal):
    assert terminal("ask", "x.mp4", "why?", "--quiet").finish() == (b"You asked: why?\r\n", 0)


def test_spinner_shows_when_only_stdout_is_piped(terminal):
    session = terminal("ask", "x.mp4", "why?", "p?", stdout_to_terminal=False)
    seen = session.read()
    assert "thinking…".encode() in seen
    assert b"asked" not in seen
    assert session.process.stdout.read() == b"You asked: why?\nYou asked: p?\n"
    session.finish()


def test_several_questions_are_printed_above_their_answers(terminal):
    seen, _ = terminal("ask", "x.mp4", "one?", "\x1b[31mtwo?", "--quiet", delay="0").finish()
    assert seen == b"You asked: one?\r\nYou asked: \\x1b[31mtwo?\r\n"
    seen, _ = terminal("ask", "x.mp4", "one?", "\x1b[31mtwo?", delay="0").finish()
    assert b"\x1b[2m\\x1b[31mtwo?\x1b[0m\r\n" in seen


def test_no_colour_is_honoured(terminal):
    seen, _ = terminal("demo", NO_COLOR="1").finish()
    assert b"38;" not in seen
    assert b"48;" not in seen
    assert b"frames at 0:00, 0:01" in seen


def test_a_dumb_terminal_gets_no_cursor_codes(terminal):
    seen, _ = terminal("ask", "x.mp4", "why?", TERM="dumb").finish()
    assert b"\x1b" not in seen
    assert seen.endswith(b"You asked: why?\r\n")


@pytest.mark.parametrize(
    ("moment", "signal_sent", "code"),
    [
        ("loading", signal.SIGINT, 130),
        ("You", signal.SIGINT, 130),
        ("thinking", signal.SIGTERM, 143),
    ],
)
def test_interrupt_restores_the_terminal(terminal, moment, signal_sent, code):
    session = terminal("ask", "x.mp4", "why?", delay="1")
    session.read(until=moment.encode())
    session.process.send_signal(signal_sent)
    seen, exit_code = session.finish()
    assert exit_code == code
    assert b"Traceback" not in seen
    assert seen.rindex(SHOW_CURSOR) > seen.rindex(HIDE_CURSOR)
    if signal_sent == signal.SIGINT:
        assert seen.endswith(b"\r\n")
        assert not seen.endswith(b"\r\n\r\n")


def test_interrupt_while_torch_is_imported_restores_the_terminal(terminal, clip):
    session = terminal("ask", str(clip), "why?", "--model", "tiny", delay="60")
    session.read(until=b"reading frames")
    time.sleep(1)  # into the imports
    session.process.send_signal(signal.SIGINT)
    seen, exit_code = session.finish()
    assert exit_code == 130
    assert b"Traceback" not in seen
    assert seen.rindex(SHOW_CURSOR) > seen.rindex(HIDE_CURSOR)
    assert seen.endswith(b"\r\n")


def test_demo_draws_the_frames(terminal):
    seen, code = terminal("demo", COLUMNS="80", COLORTERM="truecolor", delay="0").finish()
    assert code == 0
    assert "▄".encode() in seen
    assert b"0:07" in seen


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_terminal_without_unicode_gets_no_pictures_and_an_ascii_spinner(terminal, encoding):
    seen, code = terminal("demo", PYTHONIOENCODING=encoding, FAKE_QUANTISES="1").finish()
    assert code == 0
    assert seen.isascii()
    assert b"\\u" not in seen
    assert b"frames at 0:00, 0:01" in seen
    assert b"reading frames..." in seen


def test_error_on_a_narrow_terminal_is_wrapped_between_words(terminal):
    seen, _ = terminal(
        "ask", "what happens here and when?", "x.mp4", COLUMNS="40", NO_COLOR="1"
    ).finish()
    first, second, command = seen.decode().splitlines()
    assert (first, second) == ("error: the video comes first, then the", "       questions")
    assert command == "         panda ask x.mp4 'what happens here and when?'"


def test_errors_are_red_only_on_a_colour_terminal(terminal, panda):
    seen, _ = terminal("ask").finish()
    assert seen.startswith(b"\x1b[1;31merror:\x1b[0m VIDEO is missing")
    seen, _ = terminal("ask", NO_COLOR="1").finish()
    assert seen.startswith(b"error: VIDEO is missing")
    assert panda("ask").stderr.startswith(b"panda: VIDEO is missing")


def test_help_is_coloured_on_a_terminal_only(terminal, panda):
    seen, _ = terminal("ask", "--help").finish()
    assert b"\x1b[36m--quiet\x1b[0m" in seen
    assert b"\x1b" not in panda("ask", "--help").stdout


def test_existing_sheet_is_replaced_after_confirmation(environment, home, clip):
    sheet = home / "sheet.png"
    for answer, replaced in (("n", False), ("y", True)):
        sheet.write_text("before")
        terminal = Emulator(
            *("frames", str(clip), "--save", str(sheet), "--quiet"),
            environment=environment,
            columns=300,
        )
        terminal.until(r"sheet\.png exists; replace it\? \[y/N\]")
        terminal.ask(answer)
        assert terminal.end() == 0
        assert (sheet.read_bytes() != b"before") is replaced


def test_typing_during_answers_is_not_echoed(environment):
    terminal = Emulator(
        "demo", "--graphics", "none", environment=environment | {"SLOW_MODEL": "0.05"}
    )
    terminal.until("loading|thinking|frames at")
    terminal.keys("typed ahead\r")
    terminal.until("Your videos:")
    assert "typed ahead" not in terminal.text()
    assert terminal.end() == 0


def test_batch_from_the_keyboard_prints_an_instruction(environment):
    terminal = Emulator("batch", "-", "-o", "-", "--model", "tiny", environment=environment)
    terminal.until("panda: type the questions, a JSON object a line; end with Ctrl-D")
    terminal.keys("\x04")
    terminal.until("there are no questions in standard input")
    assert terminal.end() == 0
