"""The summary of `panda batch`."""

import pytest
from rich.cells import cell_len

from pandacli.batch.results import Counters
from pandacli.terminal.batch_display import BatchDisplay, duration, stage_rows
from pandacli.terminal.console import Screen
from tests.terminal.batch_outcomes import failure, feed, plain


def test_summary_shows_counts_and_failures(clock, capsys):
    counters = Counters(records=510, earlier=100, clips=20, clips_done=19, tokens=12_345)
    counters.answered = 398
    with BatchDisplay(Screen(), counters, answers="q.answers.jsonl", clock=clock) as display:
        for line in (3, 30):
            feed(display, counters, failure(f"line {line} of it is not JSON", line))
        clock.now += 125
    capsys.readouterr()
    display.summary()
    assert capsys.readouterr().err == (
        "answered          398\n"
        "failed            2\n"
        "answered earlier  100\n"
        "left              10\n"
        "clips             19 of 20\n"
        "tokens            12,345\n"
        "time              2:05\n"
        "speed             3.2 answers/s\n"
        "written to        q.answers.jsonl\n"
        "\n"
        "failures\n"
        "2  the first at line 3: line 3 of it is not JSON\n"
    )


def test_stage_rows_show_share_and_remainder():
    counters = Counters(seconds={"load": 12.0, "frames": 3.0, "answers": 84.0})
    assert stage_rows(counters, 120.0) == [
        ("load", "12.0 s   10%"),
        ("frames", " 3.0 s    2%"),
        ("answers", "  1:24   70%"),
        ("other", "21.0 s   18%"),
    ]


def test_stages_may_exceed_the_duration_of_a_distributed_run():
    assert stage_rows(Counters(seconds={"answers": 40.0}), 10.0)[-1] == ("other", " 0.0 s    0%")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.04, "0.0 s"), (59.96, "1:00"), (65, "1:05"), (7384, "2:03:04")]
)
def test_duration_is_a_clock_from_one_minute(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_summary_fits_the_terminal(columns, clock, tty):
    terminal = tty(COLUMNS=str(columns))
    counters = Counters(records=3, clips=1, seconds={"load": 1.0})
    path = "a/folder/with/a/name/" * 12 + "answers.jsonl"
    with BatchDisplay(Screen(), counters, stats=True, answers=path, clock=clock) as display:
        feed(display, counters, failure("there is no file " + path))
    terminal.truncate(0)
    display.summary()
    assert all(cell_len(line) <= columns for line in plain(terminal.getvalue().lstrip("\0")))


def test_resume_hint_repeats_the_command(clock, capsys):
    counters = Counters(records=500, answered=120)
    BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock).resume_hint(
        ["panda", "batch", "my questions.jsonl"]
    )
    assert capsys.readouterr().err == (
        "panda: 380 of 500 questions are left; resume with:\n"
        "         panda batch 'my questions.jsonl'\n"
    )


def test_no_resume_hint_when_nothing_is_left(clock, capsys):
    counters = Counters(records=5, answered=5)
    BatchDisplay(Screen(), counters, answers="a.jsonl", clock=clock).resume_hint(["panda", "batch"])
    assert capsys.readouterr().err == ""
