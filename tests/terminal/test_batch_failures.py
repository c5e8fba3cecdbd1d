"""Failures of a batch, grouped by kind."""

from pandacli.terminal.batch_display import FailureCounts
from tests.terminal.batch_outcomes import failure


def test_failures_that_differ_in_file_name_are_grouped():
    failures = FailureCounts()
    for number in range(3000):
        video = f"clips/video_{number}.mp4"
        failures.add(failure(f"there is no file /data/{video}", number + 1, video))
    failures.add(failure("not JSON", 4000))
    assert failures.rows() == [
        ("3,000", "the first at line 1: there is no file /data/clips/video_0.mp4"),
        ("1", "line 4000: not JSON"),
    ]


def test_rare_failure_kinds_are_evicted():
    failures, letters = FailureCounts(), str.maketrans("0123456789", "abcdefghij")
    for number in range(5000):
        failures.add(failure(str(number).translate(letters)))
        if number % 10 == 0:
            failures.add(failure("not JSON"))
    commonest, *_, others = failures.rows()
    assert commonest == ("500", "the first at line 17: not JSON")
    assert others == ("4,996", "other failures")
    assert len(failures._kinds) == 50


def test_long_message_is_shortened():
    failures = FailureCounts()
    failures.add(failure("x" * 1_000_000))
    (row,) = failures.rows()
    assert row[1] == f"line 17: {'x' * 299}…"
