"""`tiny` finds when shapes are to be seen, in films that other code than training's draws."""

import numpy as np
import pytest

from tests.tiny.segment_evaluation import evaluate, row, summary


@pytest.mark.slow
def test_segments_of_drawn_films_are_found(tiny, tmp_path, capsys):
    searches = list(evaluate(tiny, 3, 11, tmp_path, longest=60.0))
    overlaps = [iou for search in searches for iou in search.overlaps]
    print(*map(row, searches), summary(searches), sep="\n")
    table = capsys.readouterr().out
    assert len(overlaps) >= 5, table
    assert np.mean(overlaps) >= 0.8, table
    assert np.mean(np.array(overlaps) >= 0.5) >= 0.95, table
    assert sum(len(search.false) for search in searches) == 0, table
