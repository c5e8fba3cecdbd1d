"""Recent results per second."""

import pytest

from pandacli.terminal.progress import Throughput, per_second


def test_rate_is_unknown_after_one_batch():
    throughput = Throughput()
    for _ in range(25):
        throughput.add(10.0)
    assert throughput.per_second(10.1) is None


def test_rate_is_measured_between_batches():
    throughput = Throughput()
    for now in (0, 5, 10):
        for _ in range(25):
            throughput.add(now)
    assert throughput.per_second(14.0) == pytest.approx(5)


def test_old_results_do_not_count():
    throughput = Throughput()
    for now in range(100):
        throughput.add(float(now))
    for tenth in range(400):
        throughput.add(100 + tenth / 10)
    assert throughput.per_second(140.0) == pytest.approx(10, rel=0.05)


def test_batches_longer_than_the_window_have_a_rate():
    throughput = Throughput()
    for now in (0, 60, 120):
        for _ in range(30):
            throughput.add(now)
    assert throughput.per_second(150.0) == pytest.approx(0.5)


def test_long_gap_lowers_the_rate():
    throughput = Throughput()
    for now in range(10):
        throughput.add(float(now))
    assert throughput.per_second(100.0) < 0.2


def test_long_run_keeps_few_events():
    throughput = Throughput()
    for tenth in range(100_000):
        throughput.add(tenth / 100)
    assert len(throughput._batches) < 100


@pytest.mark.parametrize(
    ("pace", "shown"), [(4.24, "4.2/s"), (0.0421, "0.042/s"), (1240.4, "1240/s")]
)
def test_rate_is_shown_with_significant_digits(pace, shown):
    assert per_second(pace) == shown
