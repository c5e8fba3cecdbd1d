"""The pictures that a terminal's variables promise."""

import pytest

from pandacli.ui.terminal import graphics_protocol


@pytest.mark.parametrize(
    ("variables", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iTerm2"),
        ({"LC_TERMINAL": "iTerm2", "TERM": "xterm-256color"}, "iTerm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "mlterm-256color"}, "sixel"),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
    ],
)
def test_a_terminal_is_known_by_its_variables(variables, protocol):
    assert graphics_protocol(variables) == protocol


@pytest.mark.parametrize("inside", [{"TMUX": "/tmp/tmux"}, {"TERM": "screen-256color"}])
def test_within_a_multiplexer_nothing_is_promised(inside):
    assert graphics_protocol({"KITTY_WINDOW_ID": "1"} | inside) is None
