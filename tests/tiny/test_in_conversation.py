"""What `tiny` knows, it still knows after other questions about the same film."""

import pytest

from tests.tiny.other_hand import examine

pytestmark = pytest.mark.slow


def test_what_was_said_before_hardly_changes_an_answer(tiny, tmp_path):
    verdicts = list(examine(tiny, 12, 11, tmp_path, together=True))
    wrong = [verdict for verdict in verdicts if not verdict.right]
    assert len(wrong) <= 0.15 * len(verdicts), wrong
