"""A curve of the probability over a film, in half-blocks."""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from math import ceil
from typing import TYPE_CHECKING

from pandacli.video.clip import format_time

if TYPE_CHECKING:
    from pandacli.timeline.segments import WindowScore
    from pandacli.video.windows import Span

_LINES = 5
_MARGIN = 6  # columns of the labels on the left
_TICK_GAP = 4  # columns at least between two times
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)  # seconds


def probability_curve(
    windows: "Sequence[WindowScore]", span: "Span", threshold: float, columns: int, *, blocks: bool
) -> list[str]:
    """Return the lines of a curve of P(yes) over a range, with the threshold and times.

    A moment is as likely as the least likely window over it: a thing that is there is in all of
    them. Where a column has several moments, the highest stands. A gap has a question mark.
    """
    width = max(1, columns - _MARGIN)
    shares = _shares(windows, span, width)
    full, half, rule, corner, bar, axis = "█▄┈└│─" if blocks else "#_.+|-"
    at = min(_LINES - 1, int(threshold * _LINES))  # the line of the threshold, from below
    lines = []
    for row in reversed(range(_LINES)):
        label = f"{threshold:.2f}" if row == at else "1" if row == _LINES - 1 else ""
        cells = ""
        for share in shares:
            level = 0 if share is None else round(share * 2 * _LINES) - 2 * row
            empty = "?" if share is None and not row else rule if row == at else " "
            cells += full if level > 1 else half if level == 1 else empty
        lines.append(f"{label:>{_MARGIN - 2}} {bar}{cells}".rstrip())
    return [*lines, f"{'0':>{_MARGIN - 2}} {corner}{axis * width}", _times(span, width)]


def _shares(windows: "Sequence[WindowScore]", span: "Span", width: int) -> list[float | None]:
    """The highest P(yes) of the moments in each column; None where there is no window."""
    shares: list[float | None] = [None] * width
    scale = width / (span.end - span.start)
    for start, end, share in _moments(windows):
        if share is None:
            continue
        first = int((start - span.start) * scale)
        last = max(first + 1, ceil((end - span.start) * scale))
        for column in range(first, min(last, width)):
            shares[column] = max(shares[column] or 0.0, share)
    return shares


def _moments(windows: "Sequence[WindowScore]") -> Iterator[tuple[float, float, float | None]]:
    """Cut overlapping windows where the next begins: each piece has the lowest P(yes) over it."""
    for number, window in enumerate(windows):
        is_last = number + 1 == len(windows)
        end = window.end if is_last else min(window.end, windows[number + 1].start)
        over = takewhile(lambda each: each.end > window.start, windows[number::-1])  # noqa: B023
        shares = [each.probability for each in over if each.probability is not None]
        yield window.start, end, min(shares, default=None)


def _times(span: "Span", width: int) -> str:
    """The times under a curve, in steps that leave them apart."""
    length = span.end - span.start
    longest = len(format_time(ceil(span.end))) + _TICK_GAP
    hours = 3600 * max(1, ceil(longest * length / width / 3600))
    step = next((step for step in _TICKS if step * width / length >= longest), hours)
    line, moment = "", step * ceil(span.start / step)
    while moment <= span.end:
        label = format_time(moment)
        column = round((moment - span.start) * width / length) - len(label) // 2
        if column + len(label) <= width:
            line = f"{line:<{max(column, 0)}}{label}"
        moment += step
    return " " * _MARGIN + line
