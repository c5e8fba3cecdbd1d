"""Earlier turns about the same video do not change the answers of `tiny`."""

import pytest

from tests.tiny.independent_evaluation import evaluate

pytestmark = pytest.mark.slow


def test_earlier_turns_hardly_change_answers(tiny, tmp_path):
    verdicts = list(evaluate(tiny, 12, 11, tmp_path, conversation=True))
    wrong = [verdict for verdict in verdicts if not verdict.right]
    assert len(wrong) <= 0.15 * len(verdicts), wrong
