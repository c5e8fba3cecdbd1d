"""Sizes in the units that people read."""

import pytest

from pandacli.terminal.report import Stopwatch, size


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_500_000, "2 MB"), (16_340_000_000, "16.3 GB")],
)
def test_a_size_has_the_unit_that_fits(count, shown):
    assert size(count) == shown


def test_a_pause_does_not_count_as_waiting(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pandacli.terminal.report.perf_counter", lambda: now[0])
    watch = Stopwatch()
    with watch.paused():
        now[0] = 60.0
    now[0] = 61.0
    watch.start_answer()
    assert watch._before == 1.0
