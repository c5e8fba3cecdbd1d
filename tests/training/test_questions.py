"""Questions and answers of the training scenes."""

from dataclasses import replace

import numpy as np
import pytest

from training.questions import QUESTION_KINDS, describe, random_dialogue
from training.references import relation
from training.scenes import Background, Scene, Shape, distance, mirrored, random_scene

CIRCLE = Shape("circle", "red", "right", (255, 0, 0), (0.2, 0.5, 0.1), (0.5, 0.5, 0.1))
STAR = Shape("star", "blue", "appears", (0, 0, 255), (0.9, 0.5, 0.1), (0.9, 0.5, 0.1), first=0.5)
SCENE = Scene(
    (CIRCLE, STAR), Background("black", (0, 0, 0), (0, 0, 0)), 320, 240, fps=25.0, frame_count=100
)


def test_description_has_one_sentence_per_shape() -> None:
    assert describe(SCENE) == "A red circle moves right. A blue star appears."


def test_mirrored_scene_swaps_left_and_right() -> None:
    assert describe(mirrored(SCENE)) == "A red circle moves left. A blue star appears."
    assert relation(mirrored(SCENE), *mirrored(SCENE).shapes)[0] == "right"


def test_relation_is_empty_when_it_changes() -> None:
    assert relation(SCENE, CIRCLE, STAR) == ("left", "")
    crossing = replace(CIRCLE, end=(1.0, 0.5, 0.1))
    assert relation(SCENE, crossing, STAR) == ("", "")


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_every_question_kind_is_drawn(kind: str) -> None:
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, width=320, height=240, shapes=3) for _ in range(40)]
    asked = [random_dialogue(scene, kind, rng) for scene in scenes]
    assert any(dialogue.kind == kind for dialogue in asked)
    assert all(question and answer for dialogue in asked for question, answer in dialogue.turns)


def test_first_question_names_earliest_shape() -> None:
    rng = np.random.default_rng(0)
    answers = {random_dialogue(SCENE, "first", rng).turns[-1][1] for _ in range(5)}
    assert answers == {"The red circle."}


@pytest.mark.parametrize("seed", range(20))
def test_random_scenes_have_distinct_visible_shapes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, width=640, height=360)
    assert len({shape.name for shape in scene.shapes}) == len(scene.shapes)
    assert all(distance(shape.rgb, scene.background.rgb) > 0.2 for shape in scene.shapes)
    assert scene.frame_count >= 8
