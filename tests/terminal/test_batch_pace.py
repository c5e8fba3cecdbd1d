"""How many of a thing there are in a second, of late."""

import pytest

from pandacli.terminal.batch_progress import Pace, per_second


def test_nothing_is_said_of_the_pace_after_one_batch():
    pace = Pace()
    for _ in range(25):
        pace.add(10.0)
    assert pace.per_second(10.1) is None


def test_batches_give_the_pace_between_them():
    pace = Pace()
    for now in (0, 5, 10):
        for _ in range(25):
            pace.add(now)
    assert pace.per_second(14.0) == pytest.approx(5)


def test_the_pace_forgets_what_was_long_ago():
    pace = Pace()
    for now in range(100):
        pace.add(float(now))
    for tenth in range(400):
        pace.add(100 + tenth / 10)
    assert pace.per_second(140.0) == pytest.approx(10, rel=0.05)


def test_batches_that_take_longer_than_is_looked_back_still_have_a_pace():
    pace = Pace()
    for now in (0, 60, 120):
        for _ in range(30):
            pace.add(now)
    assert pace.per_second(150.0) == pytest.approx(0.5)


def test_a_silence_slows_the_pace_down():
    pace = Pace()
    for now in range(10):
        pace.add(float(now))
    assert pace.per_second(100.0) < 0.2


def test_a_long_run_keeps_few_moments():
    pace = Pace()
    for tenth in range(100_000):
        pace.add(tenth / 100)
    assert len(pace._moments) < 100


@pytest.mark.parametrize(
    ("pace", "shown"), [(4.24, "4.2/s"), (0.0421, "0.042/s"), (1240.4, "1240/s")]
)
def test_a_pace_has_as_many_digits_as_say_something(pace, shown):
    assert per_second(pace) == shown
