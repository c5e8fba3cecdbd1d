"""A clock that is set by hand, and a terminal that is none."""

import io
import sys

import pyte
import pytest


class Clock:
    """Shows what it is set to."""

    now = 1000.0

    def __call__(self):
        return self.now


class Tty(io.StringIO):
    """What a terminal is sent."""

    def isatty(self):
        return True

    def screen(self, columns=80, rows=24):
        """What it shows then."""
        screen = pyte.Screen(columns, rows)
        pyte.Stream(screen).feed(self.getvalue().replace("\n", "\r\n"))
        return screen


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tty(monkeypatch):
    """Makes stderr a terminal; in the test itself, because pytest gives every phase a stderr."""

    def attach(**environment):
        terminal = Tty()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.delenv("NO_COLOR", raising=False)
        usual = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
        for name, value in (usual | environment).items():
            monkeypatch.setenv(name, value)
        return terminal

    return attach
