"""Failures of a batch, counted by their kinds."""

from pandacli.terminal.batch_summary import Failures, failure_rows
from tests.terminal.outcomes import failure


def test_a_video_that_is_missing_three_thousand_times_is_one_kind_of_failure():
    failures = Failures()
    for number in range(3000):
        video = f"clips/video_{number}.mp4"
        failures.add(failure(f"there is no file /data/{video}", number + 1, video))
    failures.add(failure("not JSON", 4000))
    assert failure_rows(failures) == [
        ("3,000", "the first at line 1: there is no file /data/clips/video_0.mp4"),
        ("1", "line 4000: not JSON"),
    ]


def test_thousands_of_kinds_of_failures_are_not_all_kept():
    failures, letters = Failures(), str.maketrans("0123456789", "abcdefghij")
    for number in range(5000):
        failures.add(failure(str(number).translate(letters)))
        if number % 10 == 0:
            failures.add(failure("not JSON"))
    (commonest, *_), others = failures.commonest(1)
    assert (commonest.message, commonest.count, others) == ("not JSON", 500, 5000)
    assert len(failures._kinds) == 50


def test_a_message_of_a_megabyte_is_cut():
    failures = Failures()
    failures.add(failure("x" * 1_000_000))
    assert len(failures.commonest(1)[0][0].message) == 300
