"""An emulator of a small terminal with graphics.

It scrolls and drops what leaves the top, so that a picture drawn after its place has scrolled away
ends up wrong here too. Pillow decodes the pictures, and `decode_sixel` those in sixel.
"""

import io
import re
from base64 import b64decode
from dataclasses import dataclass

import numpy as np
from PIL import Image

_TOKEN = re.compile(
    r"\x1b_G(?P<kitty>.*?)\x1b\\"
    r"|\x1b\]1337;File=(?P<iterm2>.*?)\x07"
    r"|\x1bP0;1;0q(?P<sixel>.*?)\x1b\\"
    r"|\x1b\[(?P<number>[\d;]*)(?P<code>[A-Za-z])"
    r"|\x1b(?P<cursor>[78])"
    r"|(?P<plain>[^\x1b])",
    re.DOTALL,
)


@dataclass
class Shown:
    """A picture on the screen: its upper left corner and its size in cells."""

    line: int
    column: int
    cells: tuple[int, int]
    picture: Image.Image


class GraphicsTerminal:
    """Interprets output; `lines` and `pictures` are what a user would see.

    Args:
        cell: Width and height of a character cell in pixels.
    """

    def __init__(self, columns=80, rows=24, cell=(10, 20)):
        self.columns, self.rows, self.cell = columns, rows, cell
        self.screen = [[" "] * columns for _ in range(rows)]
        self.pictures = []
        self.line = self.column = 0
        self.saved = (0, 0)
        self.half_sent = None

    @property
    def lines(self):
        return ["".join(line).rstrip() for line in self.screen]

    def write(self, text):
        at = 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            assert token, f"not understood: {text[at : at + 40]!r}"
            at = token.end()
            kind = token.lastgroup if token.lastgroup != "code" else "number"
            getattr(self, f"_{kind}")(token)
        return self

    def _plain(self, token):
        character = token["plain"]
        if character == "\r":
            self.column = 0
        elif character == "\n":  # the system makes it \r\n
            self.column = 0
            self._down()
        else:
            assert self.column < self.columns, "wraps"
            self.screen[self.line][self.column] = character
            self.column += 1

    def _down(self):
        if self.line < self.rows - 1:
            self.line += 1
            return
        self.screen = [*self.screen[1:], [" "] * self.columns]
        for shown in self.pictures:
            shown.line -= 1

    def _number(self, token):
        count = int(token["number"] or 1) if token["code"] in "ABC" else 0
        match token["code"]:
            case "A":
                self.line = max(0, self.line - count)
            case "B":
                self.line = min(self.rows - 1, self.line + count)
            case "C":
                self.column = min(self.columns - 1, self.column + count)
            case other:
                assert other == "m", other

    def _cursor(self, token):
        if token["cursor"] == "7":
            self.saved = (self.line, self.column)
        else:
            self.line, self.column = self.saved

    def _kitty(self, token):
        keys, data = token["kitty"].split(";")
        assert len(data) <= 4096
        keys = dict(key.split("=") for key in keys.split(","))
        assert keys["q"] == "2", "the terminal would answer"
        if self.half_sent:
            assert set(keys) == {"q", "m"}
            first, data = self.half_sent[0], self.half_sent[1] + data
        else:
            first = keys
        self.half_sent = (first, data) if keys["m"] == "1" else None
        if self.half_sent is None:
            assert (first["a"], first["f"], first["C"]) == ("T", "100", "1")
            self._show(_picture(data), (int(first["c"]), int(first["r"])), moves=False)

    def _iterm2(self, token):
        keys, data = token["iterm2"].split(":")
        keys = dict(key.split("=") for key in keys.split(";"))
        assert keys["inline"] == "1"
        assert int(keys["size"]) == len(b64decode(data))
        self._show(_picture(data), (int(keys["width"]), int(keys["height"])), moves=True)

    def _sixel(self, token):
        picture = decode_sixel(token["sixel"])
        cells = (-(-picture.width // self.cell[0]), -(-picture.height // self.cell[1]))
        self._show(picture, cells, moves=True)

    def _show(self, picture, cells, *, moves):
        shown = Shown(self.line, self.column, cells, picture)
        self.pictures.append(shown)
        assert self.column + cells[0] <= self.columns, "a picture is cut off at the right"
        if moves:  # to the line under it, as xterm does; others stop before
            for _ in range(cells[1]):
                self._down()
            self.column = 0


def _picture(data):
    picture = Image.open(io.BytesIO(b64decode(data, validate=True)))
    assert picture.format == "PNG"
    return picture


def decode_sixel(data):
    """Decode the body of a sixel sequence to RGBA."""
    width, height = map(int, re.match(r'"1;1;(\d+);(\d+)', data).groups())
    body = data[data.index("#") :]
    pixels = np.zeros((-(-height // 6) * 6, width, 4), np.uint8)
    palette, colour, x, top = {}, None, 0, 0
    for part in re.finditer(r"#(\d+)(?:;2;(\d+);(\d+);(\d+))?|(?:!(\d+))?([?-~])|([$-])", body):
        number, red, green, blue, times, sixel, control = part.groups()
        if number:
            colour = int(number)
            if red:
                palette[colour] = [round(int(v) * 2.55) for v in (red, green, blue)] + [255]
        elif sixel:
            for row in range(6):
                if ord(sixel) - 63 >> row & 1:
                    pixels[top + row, x : x + int(times or 1)] = palette[colour]
            x += int(times or 1)
            assert x <= width
        else:
            x, top = 0, top + 6 * (control == "-")
    assert not pixels[height:].any()
    return Image.fromarray(pixels[:height])
