"""The answers of `tiny` depend on the pixels: transformed frames give transformed answers."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pandacli import Panda
from tests.tiny.clear_videos import VIDEOS, frames_of, with_pixels
from tests.tiny.synthetic_videos import DIRECTIONS, SyntheticVideo
from tests.tiny.video_questions import describe

Change = Callable[[np.ndarray], np.ndarray]

_MOVING = tuple(video for video in VIDEOS if video.actors[0].action in DIRECTIONS)

# No net motion: as many steps forward as backward, and large ones.
_SHUFFLES = ((3, 6, 1, 4, 7, 0, 5, 2), (4, 1, 6, 3, 0, 7, 2, 5), (2, 7, 4, 0, 6, 3, 5, 1))


def answers(
    tiny: Panda, videos: tuple[SyntheticVideo, ...], change: Change, question: str = "What happens?"
) -> list[str]:
    """The answers about each video after its pixels, (T, H, W, 3), are changed."""
    result = []
    for video in videos:
        frames = frames_of(video)
        clip = tiny.open(with_pixels(frames, change(frames.pixels)))
        result.append(clip.ask(question, max_tokens=40).text)
    return result


def swapped(videos: tuple[SyntheticVideo, ...], **swaps: str) -> list[str]:
    """The descriptions of the videos with pairs of words swapped."""
    both = swaps | {new: old for old, new in swaps.items()}
    return [
        describe(
            replace(
                video,
                actors=tuple(
                    replace(
                        actor,
                        action=both.get(actor.action, actor.action),
                        colour=both.get(actor.colour, actor.colour),
                    )
                    for actor in video.actors
                ),
            )
        )
        for video in videos
    ]


def mistakes(seen: list[str], expected: list[str]) -> list[tuple[str, str]]:
    """Wrong answers with the expected ones."""
    return [(a, b) for a, b in zip(seen, expected, strict=True) if a != b]


def test_clear_videos_are_described(tiny):
    seen = answers(tiny, VIDEOS, lambda pixels: pixels)
    assert len(mistakes(seen, swapped(VIDEOS))) <= 1


def test_mirrored_frames_swap_left_and_right(tiny):
    seen = answers(tiny, VIDEOS, lambda pixels: pixels[:, :, ::-1])
    assert len(mistakes(seen, swapped(VIDEOS, left="right"))) <= 1


def test_flipped_frames_swap_up_and_down(tiny):
    seen = answers(tiny, VIDEOS, lambda pixels: pixels[:, ::-1])
    assert len(mistakes(seen, swapped(VIDEOS, up="down"))) <= 1


def test_reversed_frames_reverse_motions(tiny):
    seen = answers(tiny, VIDEOS, lambda pixels: pixels[::-1])
    undone = swapped(VIDEOS, left="right", up="down", grows="shrinks", appears="disappears")
    assert len(mistakes(seen, undone)) <= 1


def test_swapped_channels_swap_colours(tiny):
    seen = answers(tiny, VIDEOS, lambda pixels: pixels[..., ::-1])
    assert len(mistakes(seen, swapped(VIDEOS, red="blue", yellow="cyan"))) <= 1


def test_frozen_frames_are_still(tiny):
    seen = answers(tiny, _MOVING, lambda pixels: pixels[[0] * len(pixels)])
    still = [
        replace(video, actors=(replace(video.actors[0], action="still"),)) for video in _MOVING
    ]
    assert len(mistakes(seen, [describe(video) for video in still])) <= 1


def test_rolled_frames_swap_appearing_and_disappearing(tiny):
    coming = tuple(video for video in VIDEOS if video.actors[0].action in ("appears", "disappears"))
    seen = answers(tiny, coming, lambda pixels: np.roll(pixels, len(pixels) // 2, axis=0))
    assert not mistakes(seen, swapped(coming, appears="disappears"))


def test_shuffled_frames_lose_motion_and_keep_shape(tiny):
    wrong = 0
    orders = (*_SHUFFLES, *(order[::-1] for order in _SHUFFLES))
    for order in orders:

        def shuffled(pixels: np.ndarray, order: tuple[int, ...] = order) -> np.ndarray:
            return pixels[list(order)]

        motion = answers(tiny, _MOVING, shuffled, "What does the shape do?")
        wrong += len(mistakes(motion, [f"It moves {v.actors[0].action}." for v in _MOVING]))

        actors = [video.actors[0] for video in _MOVING]
        shapes = answers(tiny, _MOVING, shuffled, "What shape is it?")
        assert len(mistakes(shapes, [f"A {actor.kind}." for actor in actors])) <= 1
        colours = answers(tiny, _MOVING, shuffled, "What colour is it?")
        assert len(mistakes(colours, [f"{a.colour.capitalize()}." for a in actors])) <= 1
    # a guess of one of two opposite directions is often wrong for an order or for its reverse
    assert wrong >= len(orders) * len(_MOVING) // 4


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_blank_frames_are_not_described(tiny, shade):
    seen = answers(tiny, VIDEOS, lambda pixels: np.full_like(pixels, shade))
    assert len(mistakes(seen, swapped(VIDEOS))) >= len(VIDEOS) - 1
