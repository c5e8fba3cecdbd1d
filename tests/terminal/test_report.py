"""Waiting times in reports."""

from pandacli.terminal.report import Stopwatch


def test_stopwatch_excludes_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pandacli.terminal.report.perf_counter", lambda: now[0])
    watch = Stopwatch()
    with watch.paused():
        now[0] = 60.0
    now[0] = 61.0
    watch.start_answer()
    assert watch._before == 1.0
