"""The range of a film that windows are cut from."""

from itertools import pairwise
from pathlib import Path

import pytest

from pandacli.errors import UsageError
from pandacli.video.clip import Clip
from pandacli.video.windows import Span, cut_windows, span_of


@pytest.mark.parametrize(
    ("start", "end", "span"),
    [
        (None, None, Span(0, 9.5)),
        (2.0, None, Span(2, 9.5)),
        (None, 4.0, Span(0, 4)),
        (2.0, 99.0, Span(2, 9.5)),
    ],
)
def test_range_ends_with_the_film(start, end, span):
    assert span_of(Clip(Path("a.mp4"), start, end), 9.5) == span


@pytest.mark.parametrize("start", [9.5, 30.0])
def test_range_that_starts_past_the_end_is_refused(start):
    with pytest.raises(UsageError, match=r"past the end \(the clip is 0:09\.5 long\)"):
        span_of(Clip(Path("a.mp4"), start), 9.5)


@pytest.mark.parametrize("whole", [1, 2, 3, 4])
@pytest.mark.parametrize(("rest", "extra"), [(0.0, 0), (0.75, 0), (1.0, 1), (1.25, 1)])
def test_last_window_shorter_than_half_joins_its_neighbour(whole, rest, extra):
    windows = cut_windows(Span(1, 1 + 2 * whole + rest), 2)
    assert len(windows) == whole + extra
    assert (windows[0].start, windows[-1].end) == (1, 1 + 2 * whole + rest)
    assert all(a.end == b.start for a, b in pairwise(windows))
    assert {w.end - w.start for w in windows[:-1]} <= {2}
