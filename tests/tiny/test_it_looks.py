"""`tiny` answers from the pixels: what is done to them is done to the answers."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pandacli import Panda
from tests.tiny.clear_films import FILMS, frames_of, with_pixels
from tests.tiny.film_questions import describe
from tests.tiny.films import DIRECTIONS, Film

Change = Callable[[np.ndarray], np.ndarray]

_MOVING = tuple(film for film in FILMS if film.actors[0].action in DIRECTIONS)

# Neither forth nor back: as many of the steps go one way as the other, and far.
_SHUFFLES = ((3, 6, 1, 4, 7, 0, 5, 2), (4, 1, 6, 3, 0, 7, 2, 5), (2, 7, 4, 0, 6, 3, 5, 1))


def answers(
    tiny: Panda, films: tuple[Film, ...], change: Change, question: str = "What happens?"
) -> list[str]:
    """What is answered about each film once its pixels, (T, H, W, 3), are changed."""
    result = []
    for film in films:
        frames = frames_of(film)
        clip = tiny.open(with_pixels(frames, change(frames.pixels)))
        result.append(clip.ask(question, max_tokens=40).text)
    return result


def instead(films: tuple[Film, ...], **swaps: str) -> list[str]:
    """The descriptions of the films with these words for others, in both directions."""
    both = swaps | {new: old for old, new in swaps.items()}
    return [
        describe(
            replace(
                film,
                actors=tuple(
                    replace(
                        actor,
                        action=both.get(actor.action, actor.action),
                        colour=both.get(actor.colour, actor.colour),
                    )
                    for actor in film.actors
                ),
            )
        )
        for film in films
    ]


def mistakes(seen: list[str], expected: list[str]) -> list[tuple[str, str]]:
    """Answers that are not what was expected, with what was."""
    return [(a, b) for a, b in zip(seen, expected, strict=True) if a != b]


def test_the_clear_films_are_described_as_they_are(tiny):
    seen = answers(tiny, FILMS, lambda pixels: pixels)
    assert len(mistakes(seen, instead(FILMS))) <= 1


def test_in_a_mirror_left_is_right(tiny):
    seen = answers(tiny, FILMS, lambda pixels: pixels[:, :, ::-1])
    assert len(mistakes(seen, instead(FILMS, left="right"))) <= 1


def test_on_its_head_up_is_down(tiny):
    seen = answers(tiny, FILMS, lambda pixels: pixels[:, ::-1])
    assert len(mistakes(seen, instead(FILMS, up="down"))) <= 1


def test_backwards_everything_is_undone(tiny):
    seen = answers(tiny, FILMS, lambda pixels: pixels[::-1])
    undone = instead(FILMS, left="right", up="down", grows="shrinks", appears="disappears")
    assert len(mistakes(seen, undone)) <= 1


def test_with_red_and_blue_swapped_the_colours_are_swapped_too(tiny):
    seen = answers(tiny, FILMS, lambda pixels: pixels[..., ::-1])
    assert len(mistakes(seen, instead(FILMS, red="blue", yellow="cyan"))) <= 1


def test_a_frozen_film_stays_still(tiny):
    seen = answers(tiny, _MOVING, lambda pixels: pixels[[0] * len(pixels)])
    still = [replace(film, actors=(replace(film.actors[0], action="still"),)) for film in _MOVING]
    assert len(mistakes(seen, [describe(film) for film in still])) <= 1


def test_the_second_half_first_turns_appearing_into_disappearing(tiny):
    coming = tuple(film for film in FILMS if film.actors[0].action in ("appears", "disappears"))
    seen = answers(tiny, coming, lambda pixels: np.roll(pixels, len(pixels) // 2, axis=0))
    assert not mistakes(seen, instead(coming, appears="disappears"))


@pytest.mark.parametrize("order", _SHUFFLES)
def test_shuffled_frames_lose_the_motion_and_keep_the_shape(tiny, order):
    def shuffled(pixels: np.ndarray) -> np.ndarray:
        return pixels[list(order)]

    motion = answers(tiny, _MOVING, shuffled, "What does the shape do?")
    kept = [f"It moves {film.actors[0].action}." for film in _MOVING]
    # whatever it guesses is right for one of two opposite ways
    assert len(mistakes(motion, kept)) >= len(_MOVING) // 2

    actors = [film.actors[0] for film in _MOVING]
    shapes = answers(tiny, _MOVING, shuffled, "What shape is it?")
    assert len(mistakes(shapes, [f"A {actor.kind}." for actor in actors])) <= 1
    colours = answers(tiny, _MOVING, shuffled, "What colour is it?")
    assert len(mistakes(colours, [f"{actor.colour.capitalize()}." for actor in actors])) <= 1


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_blank_frames_do_not_give_the_answer_away(tiny, shade):
    seen = answers(tiny, FILMS, lambda pixels: np.full_like(pixels, shade))
    assert len(mistakes(seen, instead(FILMS))) >= len(FILMS) - 1
