"""Questions of presence, and the windows of longer clips they are asked about."""

from dataclasses import replace

import numpy as np
import pytest

from pandacli.video import sample_indices
from training import presence
from training.presence import Claim, holds, random_presence_question
from training.scenes import Scene, Shape, random_scene
from training.templates import ANY_WAY
from training.windows import random_window

CIRCLE = Shape("circle", "red", "right", (255, 0, 0), (0.2, 0.5, 0.1), (0.5, 0.5, 0.1))


@pytest.mark.parametrize(
    ("shape", "claim", "expected"),
    [
        (CIRCLE, {}, True),
        (CIRCLE, {"colour": "red", "kind": "circle", "act": "right"}, True),
        (CIRCLE, {"colour": "red", "kind": "star", "act": "right"}, False),
        (CIRCLE, {"kind": "circle", "act": "left"}, False),
        (CIRCLE, {"act": ANY_WAY}, True),
        (CIRCLE, {"act": "appears"}, False),
        (replace(CIRCLE, first=0.4), {"act": "appears"}, True),
        (replace(CIRCLE, first=0.4), {"act": "right"}, True),
        (replace(CIRCLE, first=0.4), {"act": "disappears"}, False),
        (replace(CIRCLE, last=0.7), {"act": "disappears"}, True),
        (replace(CIRCLE, motion="grows"), {"act": ANY_WAY}, False),
    ],
)
def test_claim_holds_where_all_that_it_mentions_is_true(
    shape: Shape, claim: Claim, expected: bool
) -> None:
    assert holds(claim, shape) == expected


def questions(scenes: list[Scene], each: int = 20) -> list[tuple[str, bool]]:
    rng = np.random.default_rng(1)
    return [random_presence_question(scene, rng) for scene in scenes for _ in range(each)]


def random_scenes(count: int) -> list[Scene]:
    rng = np.random.default_rng(0)
    return [random_scene(rng, width=320, height=240) for _ in range(count)]


def random_windows(count: int) -> list[Scene]:
    rng = np.random.default_rng(0)
    return [random_window(rng, width=320, height=240) for _ in range(count)]


def test_half_of_questions_are_answered_with_yes() -> None:
    truths = [truth for _, truth in questions(random_scenes(60))]
    assert 0.4 < np.mean(truths) < 0.6


def test_every_question_about_an_empty_scene_is_answered_with_no() -> None:
    empty = replace(random_scenes(1)[0], shapes=())
    assert not any(truth for _, truth in questions([empty], 200))


def test_shape_that_is_there_is_asked_about_with_its_motion_and_with_others() -> None:
    asked = questions([replace(random_scenes(1)[0], shapes=(CIRCLE,))], 1500)
    true, false = (
        {question for question, truth in asked if "red circle" in question and truth == wanted}
        for wanted in (True, False)
    )
    assert "Does the video show this: a red circle?" in true
    assert any("right" in question for question in true)
    assert not any("left" in question for question in true)
    assert any("left" in question for question in false)
    assert not any("right" in question for question in false)


def test_stillness_of_what_comes_or_goes_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_VALUES", presence._VALUES | {"act": ("still", "up")})
    coming = replace(CIRCLE, motion="appears", end=CIRCLE.start, first=0.5)
    asked = questions([replace(random_scenes(1)[0], shapes=(coming,))], 400)
    assert any("still" in question and "red circle" not in question for question, _ in asked)
    assert not any("red circle still" in question for question, _ in asked)
    assert not any("red circle stay" in question for question, _ in asked)


def test_windows_have_no_shape_or_shapes_seen_in_a_part_of_the_frames() -> None:
    seen = []
    for scene in random_windows(200):
        times = scene.times(sample_indices(scene.fps, scene.frame_count))
        seen.append([[shape.opacity(time) > 0.5 for time in times] for shape in scene.shapes])
        for shape, visible in zip(scene.shapes, seen[-1], strict=True):
            assert any(visible)
            if shape.motion == "still":
                assert all(visible)
            if shape.fade == 0:
                assert visible[0] == (shape.first == 0)
                assert visible[-1] == (shape.last == 1)
    assert 0.08 < np.mean([not shapes for shapes in seen]) < 0.25
    shares = [np.mean(visible) for shapes in seen for visible in shapes]
    assert min(shares) < 0.3
    assert np.mean(np.array(shares) < 1) > 0.3


def test_shapes_that_move_are_seen_in_half_of_a_window() -> None:
    moving = [
        shape
        for scene in random_windows(200)
        for shape in scene.shapes
        if shape.motion in ("left", "right", "up", "down")
    ]
    assert any(shape.first > 0 for shape in moving)
    assert all(shape.last - shape.first > 0.35 for shape in moving)
