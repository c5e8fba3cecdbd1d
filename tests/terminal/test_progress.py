"""Progress bars of downloads and conversions."""

from pandacli.terminal.console import Screen
from pandacli.terminal.progress import Bars


def test_download_is_shown_in_bytes(tty):
    terminal = tty(NO_COLOR="1")
    with Bars(Screen()) as bars:
        bars.downloading("model.bin", 6_800_000_000, 3_400_000_000)
    assert "3.4/6.8 GB" in terminal.getvalue()


def test_conversion_is_shown_in_percent(tty):
    terminal = tty(NO_COLOR="1")
    with Bars(Screen()) as bars:
        bars.converting(3_400_000_000, 6_800_000_000)
    assert "50 %" in terminal.getvalue()
    assert "GB" not in terminal.getvalue()
