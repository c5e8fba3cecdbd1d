"""`tiny` ranks the clip with a shape first; other code than training's draws the clips."""

from pathlib import Path

import numpy as np
import pytest

from pandacli import Panda
from pandacli.inference.planning.planner import resolve_run
from pandacli.inference.spec import RunSpec
from pandacli.timeline.find import Moment, Ranking, Search, Wanted
from tests.tiny.clear_videos import VIDEOS, video
from tests.tiny.renderers import all_times, draw, save
from tests.tiny.synthetic_videos import Actor, SyntheticVideo

_LEFT, _RIGHT, _SIZE = (0.2, 0.5), (0.8, 0.5), (0.16, 0.16)
SHAPES = {  # none of the other clips has one
    "star": video(Actor("yellow", "star", "right", _LEFT, _RIGHT, _SIZE), "black"),
    "triangle": video(Actor("green", "triangle", "left", _RIGHT, _LEFT, _SIZE), "dark gray"),
}


def write(stem: Path, synthetic: SyntheticVideo) -> Path:
    """Write a video to a file."""
    rng = np.random.default_rng(0)
    pictures = draw(synthetic, "pillow smooth", all_times(synthetic), rng)
    return save(pictures, synthetic, "libx264", stem)


@pytest.mark.slow
def test_clips_with_a_shape_come_first(tiny: Panda, tmp_path: Path) -> None:
    paths = [write(tmp_path / str(number), each) for number, each in enumerate(VIDEOS)]
    paths += [write(tmp_path / shape, each) for shape, each in SHAPES.items()]
    plan = resolve_run(RunSpec("tiny", device="cpu"))
    for shape in SHAPES:
        ranking = Ranking(2)
        search = Search(paths, Wanted(f"Is there a {shape}?"), plan)
        list(search.look_up())
        for found in search.score(tiny):
            assert isinstance(found, Moment)
            ranking.add(found)
        best, second = ranking.moments
        assert best.path.stem == shape
        assert best.probability > 0.5 > second.probability
