"""A program in an emulated terminal: send keys, read the screen."""

import re
import sys
import time
from pathlib import Path

import pexpect
import pyte

SLOW_MODEL = Path(__file__).with_name("slow_model.py")


class Emulator:
    """`panda` in a terminal of its own.

    Args:
        arguments: What follows `panda`.
        environment: Its variables.
        columns: Of the terminal.
        lines: Of the terminal.
        script: What is run in place of `panda`.
    """

    def __init__(self, *arguments, environment, columns=80, lines=24, script=SLOW_MODEL):
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self.stream = pyte.ByteStream(self.screen)
        self.sent = b""
        # a test worker has the size of its own output there, and programs believe it
        environment = {
            name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")
        }
        self.process = pexpect.spawn(
            sys.executable,
            [str(script), *arguments],
            env=environment | {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
            dimensions=(lines, columns),
            timeout=60,
        )
        # it may ask where the cursor is; a terminal answers
        self.screen.write_process_input = lambda answer: self.process.send(answer)

    def keys(self, text):
        """Types."""
        self.process.send(text)

    def ask(self, question):
        """Types a question, and Enter."""
        self.keys(f"{question}\r")

    def resize(self, columns, lines):
        """Changes the size of the window."""
        self.process.setwinsize(lines, columns)
        self.screen.resize(lines, columns)

    def read(self, seconds=0.1):
        """Takes in what has been written since."""
        try:
            chunk = self.process.read_nonblocking(65536, timeout=seconds)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return
        self.sent += chunk
        self.stream.feed(chunk)

    def text(self):
        """All lines, those that have scrolled away included."""
        above = [
            "".join(line[x].data for x in range(self.screen.columns)).rstrip()
            for line in self.screen.history.top
        ]
        return "\n".join([*above, *(line.rstrip() for line in self.screen.display)]).rstrip()

    def until(self, pattern, seconds=40):
        """Waits until the lines have what the pattern says."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.text(), re.MULTILINE):
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.text()}"
            self.read()
        return self.text()

    def end(self):
        """Waits until the program ends; its exit code."""
        deadline = time.monotonic() + 60
        while self.process.isalive() and time.monotonic() < deadline:
            self.read()
        self.process.close()
        return self.process.exitstatus
