"""How far a download or a conversion is, on a terminal."""

import io
import sys

import pytest

from pandacli.terminal.console import Screen
from pandacli.terminal.progress import Bars


class Tty(io.StringIO):
    """What a terminal is sent."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Tty:
    """Makes stderr a terminal; in the test itself, because pytest gives every phase a stderr."""
    tty = Tty()
    monkeypatch.setattr(sys, "stderr", tty)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return tty


def test_download_is_shown_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = terminal(monkeypatch)
    with Bars(Screen()) as bars:
        bars.downloading("model.bin", 6_800_000_000, 3_400_000_000)
    assert "3.4/6.8 GB" in tty.getvalue()


def test_conversion_is_shown_in_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = terminal(monkeypatch)
    with Bars(Screen()) as bars:
        bars.converting(3_400_000_000, 6_800_000_000)
    assert "50 %" in tty.getvalue()
    assert "GB" not in tty.getvalue()
