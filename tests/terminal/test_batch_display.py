"""What is seen of a run of `panda batch`."""

import io
import re
import sys
import time
from contextlib import suppress

import pytest
from rich.cells import cell_len
from rich.console import Console

from pandacli.batch.counters import Counters
from pandacli.terminal.batch_display import BatchDisplay, Lines, progress_line
from pandacli.terminal.batch_live import Picture
from pandacli.terminal.batch_progress import Moment
from pandacli.terminal.console import Screen
from tests.terminal.outcomes import answer, failure, feed, plain


def lines_drawn(moment, width, **options):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system="standard", **options
    )
    console.print(Picture(moment))
    return console.file.getvalue()


def busy_moment(clock, **counts):
    """Of a run that has been answering four questions a second for 20 seconds."""
    counters = Counters(**{"records": 500, "failed": 3, "clips": 20, "clips_done": 3} | counts)
    moment = Moment(counters, clock)
    for _ in range(20):
        clock.now += 1
        for _ in range(4):
            counters.answered += 1
            moment.update(answer())
    return moment


# --- the time left


def test_bad_lines_before_the_first_answer_do_not_shorten_the_time_left(clock):
    counters = Counters(records=10_000)
    moment = Moment(counters, clock)
    for _ in range(5000):
        counters.failed += 1
        clock.now += 0.001
        moment.update(failure("not JSON"))
    for _ in range(10):
        counters.answered += 1
        clock.now += 1
        moment.update(answer())
    assert moment.time_left == "1:23:10"


# --- lines


def test_a_line_says_how_far_it_is(clock):
    assert progress_line(busy_moment(clock, failed=2)) == (
        "80 of 500 answered, 2 failed, 4.0/s, about 1:44 left"
    )


def test_what_an_earlier_run_answered_counts(clock):
    assert progress_line(Moment(Counters(records=9, earlier=4), clock)) == "4 of 9 answered"


def test_before_the_first_answer_a_line_says_what_is_waited_for(clock):
    moment = Moment(Counters(records=500), clock)
    moment.set_doing("loading video-panda-7b")
    assert progress_line(moment) == "0 of 500 answered, loading video-panda-7b"


def test_while_answers_come_a_line_does_not_say_what_is_done(clock):
    moment = busy_moment(clock)
    moment.set_doing("reading frames of a.mp4")
    assert "reading" not in progress_line(moment)


def test_a_line_comes_every_ten_seconds(clock, capsys):
    counters = Counters(records=100)
    lines = Lines(Screen(), Moment(counters, clock))
    for counters.answered in range(31):
        clock.now += 1
        lines.look()
    assert capsys.readouterr().err == (
        "panda: 9 of 100 answered\npanda: 19 of 100 answered\npanda: 29 of 100 answered\n"
    )


def test_a_line_is_not_said_twice(clock, capsys):
    lines = Lines(Screen(), Moment(Counters(records=100, answered=5), clock))
    for _ in range(5):
        clock.now += 10
        lines.look()
    assert capsys.readouterr().err == "panda: 5 of 100 answered\n"


def test_piped_the_last_line_says_what_came_of_it(clock, capsys):
    counters = Counters(records=2)
    with BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock) as display:
        feed(display, counters, answer())
        feed(display, counters, failure("not JSON"))
    assert capsys.readouterr().err == "panda: 1 of 2 answered, 1 failed\n"


def test_a_line_says_why_the_latest_failed_while_there_are_more(clock):
    moment = Moment(Counters(records=9, failed=1), clock)
    moment.update(failure("no file b.mp4 in clips"))
    assert progress_line(moment) == "0 of 9 answered, 1 failed (no file b.mp4 in clips)"


def test_piped_the_wish_to_stop_is_answered_soon(clock, capsys):
    with BatchDisplay(Screen(), Counters(records=9), answers="a.jsonl", clock=clock) as display:
        display.stopping()
        time.sleep(0.6)
        assert capsys.readouterr().err == (
            "panda: finishing the answers in flight; Ctrl-C again stops at once\n"
        )


def test_failures_are_told_of_once_and_by_kind(clock, capsys):
    counters = Counters(records=3000)
    with BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock) as display:
        for line in range(1, 3001):
            feed(display, counters, failure("not JSON", line))
        assert "line" not in capsys.readouterr().err
    display.summary()
    told = capsys.readouterr().err
    assert told.count("not JSON") == 1
    assert "3,000  the first at line 1: not JSON\n" in told


def test_quiet_only_failures_are_told_of(clock, capsys):
    counters = Counters(records=2)
    with BatchDisplay(Screen(quiet=True), counters, answers="a.jsonl", clock=clock) as display:
        display.doing("loading tiny")
        display.stopping()
        feed(display, counters, answer())
        feed(display, counters, failure("not JSON"))
        clock.now += 100
    display.summary()
    assert capsys.readouterr().err == "failures\n1  line 17: not JSON\n"


def test_failures_cannot_send_escape_sequences(clock, capsys):
    counters = Counters(records=1)
    with BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock) as display:
        feed(display, counters, failure("there is no file \x1b]0;owned\x07"))
    display.summary()
    assert "\x1b" not in capsys.readouterr().err


def test_a_dumb_terminal_gets_lines(clock, tty):
    terminal = tty(TERM="dumb")
    with BatchDisplay(Screen(), Counters(records=9, answered=4), answers="a.jsonl", clock=clock):
        pass
    assert terminal.getvalue() == "panda: 4 of 9 answered\n"


@pytest.mark.parametrize("answers", [None, "a.jsonl"])
def test_answers_on_the_same_terminal_are_not_drawn_over(clock, tty, monkeypatch, answers):
    terminal = tty()
    monkeypatch.setattr(sys, "stdout", terminal)
    counters = Counters(records=9, answered=4)
    with BatchDisplay(Screen(), counters, answers=answers, lines_to_stdout=True, clock=clock):
        print('{"answer": "red"}')
    assert terminal.getvalue() == '{"answer": "red"}\npanda: 4 of 9 answered\n'


# --- the picture


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_picture_leaves_room_for_the_echo_of_ctrl_c(width, clock):
    moment = busy_moment(clock, records=1_000_000, clips=40_000)
    moment.latest = answer("why? " * 100, "because " * 100)
    moment.set_doing("reading frames of a/long/path/to/some/clip/that/is/somewhere.mp4")
    for line in plain(lines_drawn(moment, width)):
        assert cell_len(line.rstrip()) <= width - 4


def test_the_picture_says_how_far_it_is(clock):
    moment = busy_moment(clock)
    doing, bar, counts, question, answered = (
        line.rstrip() for line in plain(lines_drawn(moment, 80))
    )
    assert doing[2:] == "answering…"
    assert bar.endswith("━ 83/500  16%")
    assert counts == "clips 3/20, 3 failed, 4.0/s, 1:44 left"
    assert (question, answered) == ("Q What happens?", "A A circle moves.")


def test_at_40_columns_counts_go_to_a_second_line_whole(clock):
    moment = busy_moment(clock, clips=4000, clips_done=1234)
    assert [line.rstrip() for line in plain(lines_drawn(moment, 40))][2:4] == [
        "clips 1234/4000, 3 failed, 4.0/s",
        "1:44 left",
    ]


def test_failures_are_red_only_if_there_are_some(clock):
    assert "\x1b[31m3 failed" in lines_drawn(busy_moment(clock), 80)
    assert "failed" not in lines_drawn(busy_moment(clock, failed=0), 80)


def test_without_colours_the_picture_has_none(clock):
    assert not re.search(r"\x1b\[[\d;]*3\d", lines_drawn(busy_moment(clock), 80, no_color=True))


def test_before_the_questions_are_counted_there_is_no_bar(clock):
    moment = Moment(Counters(), clock)
    moment.set_doing("reading the questions")
    assert [line.rstrip()[2:] for line in plain(lines_drawn(moment, 80))] == [
        "reading the questions…"
    ]


def test_questions_and_answers_are_no_markup_and_one_line_each(clock):
    moment = busy_moment(clock)
    moment.latest = answer("[red]why?[/red]\x1b[2J", "first\nsecond :smile:")
    assert [line.rstrip() for line in plain(lines_drawn(moment, 80))][-2:] == [
        r"Q [red]why?[/red]\x1b[2J",
        "A first second :smile:",
    ]


def test_wide_characters_are_cut_where_the_line_ends(clock):
    moment = busy_moment(clock)
    moment.latest = answer("何が起こりますか" * 20, "円" * 100)
    assert all(cell_len(line) <= 40 for line in plain(lines_drawn(moment, 40)))


@pytest.mark.parametrize("width", [40, 80])
def test_while_stopping_the_picture_says_so_to_the_end(width, clock):
    moment = busy_moment(clock)
    moment.stopping = True
    words = " ".join(plain(lines_drawn(moment, width))).split()
    assert "Ctrl-C again stops at once" in " ".join(words)


def test_the_picture_has_the_latest_failure(clock):
    moment = busy_moment(clock)
    moment.update(failure("no file b.mp4 in clips"))
    assert plain(lines_drawn(moment, 80))[-1].rstrip() == "! line 17: no file b.mp4 in clips"


def test_nothing_is_left_of_the_picture(clock, tty):
    terminal = tty()
    counters = Counters(records=9, clips=2)
    with BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock) as display:
        feed(display, counters, answer())
        feed(display, counters, failure("not JSON"))
    shown = terminal.screen()
    assert [line.rstrip() for line in shown.display if line.strip()] == []


def test_the_picture_moves_without_being_asked(clock, tty):
    terminal = tty()
    counters = Counters(records=9)
    with BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock) as display:
        feed(display, counters, answer(said="A square."))
        deadline = time.monotonic() + 5
        while "A square." not in terminal.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_goes_to_stdout_meanwhile_stays_there(clock, tty, capsys):
    terminal = tty()
    counters = Counters(records=9)
    with BatchDisplay(Screen(), counters, answers=None, lines_to_stdout=True, clock=clock):
        print("{}")
    assert capsys.readouterr().out == "{}\n"
    assert "{}" not in terminal.getvalue()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_after_an_exception_the_cursor_is_back(error, clock, tty):
    terminal = tty()
    display = BatchDisplay(Screen(), Counters(records=9), answers="a.jsonl", clock=clock)
    with suppress(error), display:
        assert terminal.screen().cursor.hidden
        raise error
    assert not terminal.screen().cursor.hidden


def test_an_update_draws_nothing(clock, tty):
    tty()
    counters = Counters(records=100_000)
    with BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock) as display:
        started = time.perf_counter()
        for _ in range(20_000):
            feed(display, counters, answer())
        assert time.perf_counter() - started < 1
