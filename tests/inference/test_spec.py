"""Which numbers of frames can be cut into equal chunks."""

import pytest

from pandacli.errors import UsageError
from pandacli.inference.spec import check_frame_count
from pandacli.modeling.patches import chunk_length


@pytest.mark.parametrize("frames", [1, 4, 5, 6, 7, 8, 10, 12, 15, 16, 20, 64])
def test_numbers_with_equal_chunks_are_accepted(frames: int) -> None:
    check_frame_count(frames)


@pytest.mark.parametrize(
    ("frames", "near"),
    [
        (0, "1"),
        (-3, "1"),
        (2, "1 or 4"),
        (3, "1 or 4"),
        (9, "8 or 10"),
        (11, "10 or 12"),
        (13, "12 or 15"),
        (17, "16 or 20"),
    ],
)
def test_other_numbers_are_refused_with_the_nearest(frames: int, near: str) -> None:
    with pytest.raises(UsageError, match=f"{frames} frames") as caught:
        check_frame_count(frames)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"{near} would do")


@pytest.mark.parametrize("chunk", [2, 3, 4, 8])
def test_the_rule_matches_the_model(chunk: int) -> None:
    for frames in range(2, 70):
        try:
            chunk_length(frames, chunk)
        except ValueError:
            with pytest.raises(UsageError):
                check_frame_count(frames, chunk)
        else:
            check_frame_count(frames, chunk)
