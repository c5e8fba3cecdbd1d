"""`tiny` is not tied to the renderer it was trained with."""

import pytest

from tests.tiny.other_hand import examine, report


@pytest.fixture(scope="module")
def verdicts(tiny, tmp_path_factory):
    return list(examine(tiny, 8, 1, tmp_path_factory.mktemp("films")))


def test_films_of_another_hand_are_answered_rightly(verdicts, capsys):
    share = sum(verdict.right for verdict in verdicts) / len(verdicts)
    report(verdicts)
    assert share >= 0.9, capsys.readouterr().out


@pytest.mark.slow
def test_no_way_of_drawing_is_beyond_it(tiny, tmp_path):
    verdicts = list(examine(tiny, 16, 2, tmp_path))
    for brush in {verdict.brush for verdict in verdicts}:
        rights = [verdict.right for verdict in verdicts if verdict.brush == brush]
        assert sum(rights) / len(rights) >= 0.85, brush
