"""`tiny` is not tied to the renderer it was trained with."""

import pytest

from tests.tiny.independent_evaluation import evaluate, report


@pytest.fixture(scope="module")
def verdicts(tiny, tmp_path_factory):
    return list(evaluate(tiny, 8, 1, tmp_path_factory.mktemp("videos")))


def test_independent_videos_are_answered_rightly(verdicts, capsys):
    share = sum(verdict.right for verdict in verdicts) / len(verdicts)
    report(verdicts)
    assert share >= 0.9, capsys.readouterr().out


@pytest.mark.slow
def test_every_renderer_is_answered_rightly(tiny, tmp_path):
    verdicts = list(evaluate(tiny, 16, 2, tmp_path))
    for renderer in {verdict.renderer for verdict in verdicts}:
        rights = [verdict.right for verdict in verdicts if verdict.renderer == renderer]
        assert sum(rights) / len(rights) >= 0.85, renderer
