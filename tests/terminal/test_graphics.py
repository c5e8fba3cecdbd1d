"""The frame strip in terminal graphics: choice of protocol, and escape sequences."""

import io
import os
import pty
import struct
import termios
from fcntl import ioctl
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pandacli.terminal.frame_strip import (
    FrameStrip,
    cell_size,
    choose_protocol,
    escape_sequence,
    graphics_protocol,
)
from tests.terminal.graphics_terminal import GraphicsTerminal

PROTOCOLS = ("kitty", "iterm2", "sixel")
COLOURS = [(230, 30, 30), (30, 200, 30), (30, 30, 230), (220, 220, 40)]


@pytest.mark.parametrize(
    ("variables", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iTerm2"),
        ({"TERM_PROGRAM": "WezTerm"}, "iTerm2"),
        ({"LC_TERMINAL": "iTerm2", "TERM": "xterm-256color"}, "iTerm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "mlterm-256color"}, "sixel"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM_PROGRAM": "vscode", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-kitty", "TERM_PROGRAM": "Apple_Terminal"}, "kitty"),
        ({}, None),
    ],
)
def test_protocol_follows_environment(variables, protocol):
    assert graphics_protocol(variables) == protocol


@pytest.mark.parametrize("inside", [{"TMUX": "/tmp/tmux"}, {"TERM": "screen-256color"}])
def test_no_protocol_inside_a_multiplexer(inside):
    assert graphics_protocol({"KITTY_WINDOW_ID": "1"} | inside) is None


@pytest.mark.parametrize(
    ("chosen", "variables", "cell", "way"),
    [
        ("auto", {}, (10, 20), "blocks"),
        ("auto", {"TERM": "xterm-kitty"}, None, "kitty"),
        ("auto", {"TERM_PROGRAM": "iTerm.app"}, None, "iterm2"),
        ("auto", {"TERM": "foot"}, (10, 20), "sixel"),
        ("auto", {"TERM": "foot"}, None, "blocks"),
        ("sixel", {}, None, "sixel"),
        ("blocks", {"TERM": "xterm-kitty"}, (10, 20), "blocks"),
        ("kitty", {"TMUX": "1"}, None, "kitty"),
    ],
)
def test_option_overrides_environment(chosen, variables, cell, way):
    assert choose_protocol(chosen, variables, cell) == way


@pytest.fixture
def terminal():
    """A real pseudo-terminal of 80x24 cells, as a stream; `resize(width, height)` sets pixels."""
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stream:  # noqa: PTH123

        def resize(width, height):
            ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, width, height))

        yield SimpleNamespace(stream=stream, resize=resize)
    os.close(ours)


def test_cell_size_comes_from_the_system(terminal):
    terminal.resize(800, 480)
    assert cell_size(terminal.stream) == (10, 20)


@pytest.mark.parametrize("pixels", [(0, 0), (80, 0), (20, 20)])
def test_cell_size_is_unknown_without_pixel_size(terminal, pixels):
    terminal.resize(*pixels)
    assert cell_size(terminal.stream) is None


def test_cell_size_of_a_file_is_unknown(tmp_path):
    with (tmp_path / "out").open("w") as file:
        assert cell_size(file) is None
    assert cell_size(io.StringIO()) is None


def test_unknown_protocol_is_an_error():
    with pytest.raises(ValueError, match="ReGIS"):
        escape_sequence("ReGIS", Image.new("RGBA", (10, 20)), (1, 1))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sequence_decodes_to_the_picture(protocol):
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 255, (7, 8, 3), np.uint8), np.ones((20, 10, 1), np.uint8))
    picture = Image.fromarray(pixels.astype(np.uint8)).convert("RGBA")
    shown = GraphicsTerminal().write(escape_sequence(protocol, picture, (8, 7))).pictures
    assert [(s.cells, s.picture.size) for s in shown] == [((8, 7), (80, 140))]
    seen = np.asarray(shown[0].picture.convert("RGBA")).astype(int)
    assert np.abs(seen - np.asarray(picture)).max() <= (2 if protocol == "sixel" else 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_transparency_is_kept(protocol):
    picture = Image.new("RGBA", (30, 20))
    picture.paste((200, 100, 50), (0, 7, 30, 20))
    shown = GraphicsTerminal().write(escape_sequence(protocol, picture, (3, 1))).pictures[0]
    alpha = np.asarray(shown.picture)[..., 3]
    assert not alpha[:7].any()
    assert (alpha[7:] == 255).all()


def test_kitty_is_lossless_and_sixel_close_for_many_colours():
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    picture = Image.fromarray(noise).convert("RGBA")
    exact, near = (
        np.asarray(
            GraphicsTerminal().write(escape_sequence(p, picture, (4, 2))).pictures[0].picture
        )
        for p in ("kitty", "sixel")
    )
    assert (exact == np.asarray(picture)).all()
    assert np.abs(near[..., :3].astype(int) - noise).mean() < 25


def frames(count, height, width):
    pixels = np.zeros((count, height, width, 3), np.uint8)
    for number in range(count):
        pixels[number] = COLOURS[number % len(COLOURS)]
    return SimpleNamespace(pixels=pixels, times=tuple(number * 61.5 for number in range(count)))


def on_screen(strip, columns, rows, cell, before=0):
    console = Console(
        file=io.StringIO(), width=columns, height=rows, color_system=None, force_terminal=True
    )
    console.print(strip)
    text = "above\n" * before + console.file.getvalue() + "below"
    return GraphicsTerminal(columns, rows, cell).write(text)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
@pytest.mark.parametrize("shape", [(360, 640), (400, 400), (640, 360), (40, 640)])
@pytest.mark.parametrize("count", [1, 8])
def test_every_picture_is_above_its_time(protocol, size, shape, count):
    cell = (9, 19)
    strip = FrameStrip(frames(count, *shape), protocol, cell)
    screen = on_screen(strip, *size, cell, before=size[1])
    assert len(screen.pictures) == count
    assert screen.line <= size[1] - 1
    for number, shown in enumerate(screen.pictures):
        seconds = number * 61.5
        time = f"{int(seconds // 60)}:{seconds % 60:04.1f}".removesuffix(".0")
        right = shown.column + shown.cells[0]
        under = shown.line + shown.cells[1]
        if protocol == "sixel" and time not in screen.lines[under]:
            under += 1  # its last line may be empty
        assert time in screen.lines[under][shown.column : max(right, shown.column + 8)]
        alpha = np.asarray(shown.picture.convert("RGBA"))
        middle = alpha[shown.picture.height * 2 // 3, shown.picture.width // 2]
        assert np.abs(middle[:3].astype(int) - COLOURS[number % 4]).max() <= 3
        assert middle[3] == 255


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("shape", [(360, 640), (640, 360)])
def test_picture_keeps_its_aspect_ratio(protocol, shape):
    screen = on_screen(FrameStrip(frames(8, *shape), protocol, (9, 19)), 120, 40, (9, 19))
    for shown in screen.pictures:
        alpha = np.asarray(shown.picture)[..., 3] > 0
        height, width = alpha.any(axis=1).sum(), alpha.any(axis=0).sum()
        assert width / height == pytest.approx(shape[1] / shape[0], rel=0.03)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("before", [0, 5, 24])
def test_text_around_the_strip_is_not_overwritten(protocol, before):
    screen = on_screen(FrameStrip(frames(8, 360, 640), protocol), 80, 24, (10, 20), before)
    assert screen.lines[screen.line] == "below"
    top = min(shown.line for shown in screen.pictures)
    assert screen.lines[:top] == ["above"] * top
    assert len({shown.line for shown in screen.pictures}) == 2
    assert screen.line - top <= 16


def test_half_blocks_on_a_low_terminal():
    strip = FrameStrip(frames(1, 640, 360), "kitty")
    console = Console(file=io.StringIO(), width=80, height=12, force_terminal=True)
    console.print(strip)
    assert "\x1b_G" not in console.file.getvalue()
    assert "▄" in console.file.getvalue()


def test_picture_resolution_is_limited():
    screen = on_screen(FrameStrip(frames(8, 360, 640), "kitty", (40, 80)), 200, 50, (40, 80))
    assert max(shown.picture.width for shown in screen.pictures) <= 16 * 32
