"""Progress of `panda batch`: log lines and live view."""

import io
import re
import sys
import time
from contextlib import suppress

import pytest
from rich.cells import cell_len
from rich.console import Console

from pandacli.batch.check import Counts
from pandacli.batch.results import Counters
from pandacli.terminal.batch_display import BatchDisplay, LogLines
from pandacli.terminal.console import Screen
from pandacli.terminal.progress import BatchPanel, BatchProgress, CheckProgress
from tests.terminal.batch_outcomes import answer, failure, feed, plain


def render(progress, width, **options):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system="standard", **options
    )
    console.print(BatchPanel(progress))
    return console.file.getvalue()


def busy_progress(clock, **counts):
    """Progress of a run after 20 seconds at four answers per second."""
    counters = Counters(**{"records": 500, "failed": 3, "clips": 20, "clips_done": 3} | counts)
    progress = BatchProgress(counters, clock)
    for _ in range(20):
        clock.now += 1
        for _ in range(4):
            counters.answered += 1
            progress.update(answer())
    return progress


# --- the time left


def test_early_failures_do_not_skew_time_left(clock):
    counters = Counters(records=10_000)
    progress = BatchProgress(counters, clock)
    for _ in range(5000):
        counters.failed += 1
        clock.now += 0.001
        progress.update(failure("not JSON"))
    for _ in range(10):
        counters.answered += 1
        clock.now += 1
        progress.update(answer())
    assert progress.forecast()[-1] == "1:23:10 left"


# --- lines


def test_line_shows_counts_rate_and_time_left(clock):
    assert busy_progress(clock, failed=2).line() == (
        "80 of 500 answered, 2 failed, 4.0/s, 1:44 left"
    )


def test_earlier_answers_count(clock):
    assert BatchProgress(Counters(records=9, earlier=4), clock).line() == "4 of 9 answered"


def test_line_shows_current_step_before_the_first_answer(clock):
    progress = BatchProgress(Counters(records=500), clock)
    progress.waiting.say("loading video-panda-7b")
    assert progress.line() == "0 of 500 answered, loading video-panda-7b"


def test_line_hides_current_step_while_answers_come(clock):
    progress = busy_progress(clock)
    progress.waiting.say("reading frames of a.mp4")
    assert "reading" not in progress.line()


def test_log_line_every_ten_seconds(clock, capsys):
    counters = Counters(records=100)
    lines = LogLines(Screen(), BatchProgress(counters, clock))
    for counters.answered in range(31):
        clock.now += 1
        lines.poll()
    assert capsys.readouterr().err == (
        "panda: 9 of 100 answered\npanda: 19 of 100 answered\npanda: 29 of 100 answered\n"
    )


def test_log_line_is_not_repeated(clock, capsys):
    lines = LogLines(Screen(), BatchProgress(Counters(records=100, answered=5), clock))
    for _ in range(5):
        clock.now += 10
        lines.poll()
    assert capsys.readouterr().err == "panda: 5 of 100 answered\n"


def test_piped_run_ends_with_final_counts(clock, capsys):
    counters = Counters(records=2)
    with BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock) as display:
        feed(display, counters, answer())
        feed(display, counters, failure("not JSON"))
    assert capsys.readouterr().err == "panda: 1 of 2 answered, 1 failed\n"


def test_line_shows_latest_failure_while_running(clock):
    progress = BatchProgress(Counters(records=9, failed=1), clock)
    progress.update(failure("no file b.mp4 in clips"))
    assert progress.line() == "0 of 9 answered, 1 failed (no file b.mp4 in clips)"


def test_piped_run_acknowledges_stop(clock, capsys):
    with BatchDisplay(Screen(), Counters(records=9), answers="a.jsonl", clock=clock) as display:
        display.set_stopping()
        time.sleep(0.6)
        assert capsys.readouterr().err == (
            "panda: finishing the answers in flight; Ctrl-C again stops at once\n"
        )


def test_failures_are_reported_once_per_kind(clock, capsys):
    counters = Counters(records=3000)
    with BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock) as display:
        for line in range(1, 3001):
            feed(display, counters, failure("not JSON", line))
        assert "line" not in capsys.readouterr().err
    display.summary()
    shown = capsys.readouterr().err
    assert shown.count("not JSON") == 1
    assert "3,000  the first at line 1: not JSON\n" in shown


def test_quiet_run_reports_only_failures(clock, capsys):
    counters = Counters(records=2)
    with BatchDisplay(Screen(quiet=True), counters, answers="a.jsonl", clock=clock) as display:
        display.set_step("loading tiny")
        display.set_stopping()
        feed(display, counters, answer())
        feed(display, counters, failure("not JSON"))
        clock.now += 100
    display.summary()
    assert capsys.readouterr().err == "failures\n1  line 17: not JSON\n"


def test_failures_are_sanitized(clock, capsys):
    counters = Counters(records=1)
    with BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock) as display:
        feed(display, counters, failure("there is no file \x1b]0;owned\x07"))
    display.summary()
    assert "\x1b" not in capsys.readouterr().err


def test_dumb_terminal_gets_log_lines(clock, tty):
    terminal = tty(TERM="dumb")
    with BatchDisplay(Screen(), Counters(records=9, answered=4), answers="a.jsonl", clock=clock):
        pass
    assert terminal.getvalue() == "panda: 4 of 9 answered\n"


@pytest.mark.parametrize("answers", [None, "a.jsonl"])
def test_no_live_view_when_answers_go_to_the_same_terminal(clock, tty, monkeypatch, answers):
    terminal = tty()
    monkeypatch.setattr(sys, "stdout", terminal)
    counters = Counters(records=9, answered=4)
    with BatchDisplay(Screen(), counters, answers=answers, lines_to_stdout=True, clock=clock):
        print('{"answer": "red"}')
    assert terminal.getvalue() == '{"answer": "red"}\npanda: 4 of 9 answered\n'


def test_check_without_a_terminal_has_a_line_every_ten_seconds(clock, capsys):
    counts = Counts(questions=9, clips=3)
    lines = LogLines(Screen(), CheckProgress(counts, clock))
    for counts.checked, counts.bad_clips in ((1, 0), (2, 1), (3, 1)):
        clock.now += 5.1
        lines.poll()
        lines.poll()
    clock.now += 11
    lines.poll()
    assert capsys.readouterr().err == "panda: 2 of 3 clips are checked, 1 cannot be used\n"


# --- the live view


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_live_view_leaves_columns_for_echo_of_ctrl_c(width, clock):
    progress = busy_progress(clock, records=1_000_000, clips=40_000)
    progress.latest = answer("why? " * 100, "because " * 100)
    progress.waiting.say("reading frames of a/long/path/to/some/clip/that/is/somewhere.mp4")
    for line in plain(render(progress, width)):
        assert cell_len(line.rstrip()) <= width - 4


def test_live_view_shows_step_bar_counts_and_answer(clock):
    progress = busy_progress(clock)
    doing, bar, counts, question, answered = (line.rstrip() for line in plain(render(progress, 80)))
    assert doing[2:] == "answering…"
    assert bar.endswith("━ 83/500  16%")
    assert counts == "clips 3/20, 3 failed, 4.0/s, 1:44 left"
    assert (question, answered) == ("Q What happens?", "A A circle moves.")


def test_counts_wrap_whole_at_40_columns(clock):
    progress = busy_progress(clock, clips=4000, clips_done=1234)
    assert [line.rstrip() for line in plain(render(progress, 40))][2:4] == [
        "clips 1234/4000, 3 failed, 4.0/s",
        "1:44 left",
    ]


def test_failed_count_is_red(clock):
    assert "\x1b[31m3 failed" in render(busy_progress(clock), 80)
    assert "failed" not in render(busy_progress(clock, failed=0), 80)


def test_live_view_without_colours(clock):
    assert not re.search(r"\x1b\[[\d;]*3\d", render(busy_progress(clock), 80, no_color=True))


def test_no_bar_before_records_are_counted(clock):
    progress = BatchProgress(Counters(), clock)
    progress.waiting.say("reading the questions")
    assert [line.rstrip()[2:] for line in plain(render(progress, 80))] == ["reading the questions…"]


def test_question_and_answer_are_one_sanitized_line_each(clock):
    progress = busy_progress(clock)
    progress.latest = answer("[red]why?[/red]\x1b[2J", "first\nsecond :smile:")
    assert [line.rstrip() for line in plain(render(progress, 80))][-2:] == [
        r"Q [red]why?[/red]\x1b[2J",
        "A first second :smile:",
    ]


def test_wide_characters_are_cropped_at_line_end(clock):
    progress = busy_progress(clock)
    progress.latest = answer("何が起こりますか" * 20, "円" * 100)
    assert all(cell_len(line) <= 40 for line in plain(render(progress, 40)))


@pytest.mark.parametrize("width", [40, 80])
def test_stopping_message_is_shown_in_full(width, clock):
    progress = busy_progress(clock)
    progress.stopping = True
    words = " ".join(plain(render(progress, width))).split()
    assert "Ctrl-C again stops at once" in " ".join(words)


def test_live_view_shows_latest_failure(clock):
    progress = busy_progress(clock)
    progress.update(failure("no file b.mp4 in clips"))
    assert plain(render(progress, 80))[-1].rstrip() == "! line 17: no file b.mp4 in clips"


def test_live_view_is_erased(clock, tty):
    terminal = tty()
    counters = Counters(records=9, clips=2)
    with BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock) as display:
        feed(display, counters, answer())
        feed(display, counters, failure("not JSON"))
    shown = terminal.screen()
    assert [line.rstrip() for line in shown.display if line.strip()] == []


def test_live_view_refreshes_by_itself(clock, tty):
    terminal = tty()
    counters = Counters(records=9)
    with BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock) as display:
        feed(display, counters, answer(text="A square."))
        deadline = time.monotonic() + 5
        while "A square." not in terminal.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_stdout_is_not_redirected(clock, tty, capsys):
    terminal = tty()
    counters = Counters(records=9)
    with BatchDisplay(Screen(), counters, answers=None, lines_to_stdout=True, clock=clock):
        print("{}")
    assert capsys.readouterr().out == "{}\n"
    assert "{}" not in terminal.getvalue()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_cursor_is_restored_after_an_exception(error, clock, tty):
    terminal = tty()
    display = BatchDisplay(Screen(), Counters(records=9), answers="a.jsonl", clock=clock)
    with suppress(error), display:
        assert terminal.screen().cursor.hidden
        raise error
    assert not terminal.screen().cursor.hidden


def test_update_does_not_draw(clock, tty):
    tty()
    counters = Counters(records=100_000)
    with BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock) as display:
        started = time.perf_counter()
        for _ in range(20_000):
            feed(display, counters, answer())
        assert time.perf_counter() - started < 1
