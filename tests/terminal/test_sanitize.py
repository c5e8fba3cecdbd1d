"""Escaping of control characters."""

import subprocess
import sys
import unicodedata

import pytest

from pandacli.terminal.text import sanitize, sanitize_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("bell\x07", "bell\\x07"),
        ("over\rwritten", "over\\rwritten"),
        ("\x9b31m", "\\x9b31m"),
        ("\x7f", "\\x7f"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_characters_are_escaped(text, shown):
    assert sanitize(text) == shown


@pytest.mark.parametrize(
    "text", ["plain [bold]text[/]", "naïve 東京 👩‍👩‍👧", "العربية עברית", "two\nlines\tand a tab"]
)
def test_other_text_is_unchanged(text):
    assert sanitize(text) == text


def test_sanitize_line_escapes_newlines_and_tabs():
    assert sanitize_line("a\nb\tc") == "a\\nb\\tc"


def test_no_control_character_passes():
    everything = "".join(map(chr, range(0x11000)))
    left = {c for c in sanitize(everything) if unicodedata.category(c) in ("Cc", "Cs")}
    assert left == {"\n", "\t"}


def test_sanitize_works_on_pieces_of_a_stream():
    text = "a\x1b[31mb\u202ec\n"
    assert "".join(sanitize(character) for character in text) == sanitize(text)


@pytest.mark.parametrize(
    "statement",
    [
        "warnings.warn(evil)",
        "logging.getLogger('library').warning('about %s', evil)",
        "logging.basicConfig(); logging.error(evil)",
        "logging.basicConfig(); logging.captureWarnings(True); warnings.warn(evil)",
        "logging.getLogger('x').exception('it failed', exc_info=ValueError(evil))",
        "logging.getLogger('x').warning('from here', stack_info=evil)",
        "threading.Thread(target=int, args=(evil,), name=evil).start()",
        "Finalized()",
        "raise ValueError(evil)",
        "exec(compile('raise ValueError', evil, 'exec'))",
    ],
)
def test_library_output_is_sanitized(statement):
    script = f"""
import logging, threading, warnings
from pandacli.terminal.text import sanitize_libraries

evil = "\\x1b[31m\\u202e\\x07"

class Finalized:
    def __del__(self):
        raise ValueError(evil)

sanitize_libraries()
sanitize_libraries()
{statement}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    shown = done.stderr.decode()
    assert shown
    assert "\\x1b[31m" in shown or "from here" in shown
    assert not {c for c in shown if unicodedata.category(c) in ("Cc", "Cf")} - {"\n"}


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
def test_interrupt_in_a_callback_is_not_shown(error):
    script = f"""
from pandacli.cli import signals
from pandacli.terminal.text import sanitize_libraries

class Finalized:
    def __del__(self):
        raise {error}

signals.install()
sanitize_libraries()
Finalized()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.stderr == b""
