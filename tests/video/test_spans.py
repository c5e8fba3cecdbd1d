"""The range of a film that windows are cut from."""

from pathlib import Path

import pytest

from pandacli.errors import UsageError
from pandacli.video.clip import Clip
from pandacli.video.windows import Span, span_of


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
