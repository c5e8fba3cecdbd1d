"""The line on what is waited for: its words, numbers and width."""

import random
from collections.abc import Callable

import pytest

from pandacli.background import Background, Step, running
from pandacli.batch.results import Counters
from pandacli.terminal.console import Screen
from pandacli.terminal.progress import BatchPanel, BatchProgress, RunProgress
from pandacli.terminal.text import cells
from pandacli.terminal.waiting import Waiting, waiting_line
from tests.terminal.conftest import Clock, Tty

LOADING = "loading video-panda-7b"


def loading(done: int = 2_100_000_000, last: float | None = 9.0) -> Step:
    return Step(LOADING, 7_200_000_000, "bytes", lambda: last, done, began=100.0)


def prompt(done: int = 462, last: float | None = 46.0) -> Step:
    return Step("reading the prompt", 1232, "tokens", lambda: last, done, began=100.0)


@pytest.mark.parametrize(
    ("step", "now", "line"),
    [
        (loading(), 103.4, f"{LOADING} 2.1 of 7.2 GB, 3 s (last time 9 s)"),
        (loading(300_000_000, None), 103.4, f"{LOADING} 300 MB of 7.2 GB, 3 s"),
        (loading(0), 101.0, f"{LOADING} 0 bytes of 7.2 GB (last time 9 s)"),
        (prompt(), 117.0, "reading the prompt 462 of 1,232 tokens, 17 s (last time 46 s)"),
        (
            prompt(1232, 95),
            199.0,
            "reading the prompt 1,232 of 1,232 tokens, 1:39 (last time 1:35)",
        ),
        (Step("importing", 0, "files", began=100.0), 102.0, "importing, 2 s"),
        (Step("importing", 0, "files", began=100.0), 101.9, "importing…"),
    ],
)
def test_line_has_amount_elapsed_time_and_that_of_last_time(
    step: Step, now: float, line: str
) -> None:
    assert waiting_line("thinking", 50.0, step, now) == line


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (60, "reading the prompt 462 of 1,232 tokens, 17 s"),
        (40, "reading the prompt 462 of 1,232, 17 s"),
        (32, "reading...mpt 462 of 1,232, 17 s"),
        (25, "reading the prompt, 17 s"),
        (16, "reading..., 17 s"),
    ],
)
def test_narrow_line_drops_the_least_important_part_first(columns: int, line: str) -> None:
    assert waiting_line("thinking", 0.0, prompt(), 117.0, columns) == line


@pytest.mark.parametrize("seed", range(10))
def test_no_line_is_wider_than_asked_for(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(100):
        words = "".join(draw.choices("ab %5\n\x1b東京…é", k=draw.randrange(60)))
        step = draw.choice([None, loading(), prompt(0, None), Step(words, 10**9, "bytes")])
        seconds, columns = draw.choice([0.0, 5.0, 3e5]), draw.randint(1, 90)
        line = waiting_line(words, seconds, step, 100.0 + seconds, columns)
        assert line.isprintable()
        assert 0 < cells(line) <= columns


def test_number_at_the_end_of_words_is_kept() -> None:
    line = waiting_line("quantising video-panda-7b once, 34 %", 5.0, None, 0.0, 36)
    assert line.endswith(", 34 %, 5 s")


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (80, "window 3 of 20, about 1:20 left: reading the prompt 462 of 1,232 tokens, 17 s"),
        (70, "window 3 of 20, about 1:20 left: reading the prompt 462 of 1,232, 17 s"),
        (60, "window 3 of 20, about 1:20 left, 4 s"),
    ],
)
def test_step_follows_words_that_count_where_there_is_room(columns: int, line: str) -> None:
    words = "window 3 of 20, about 1:20 left"
    assert waiting_line(words, 4.0, prompt(), 117.0, columns) == line


def test_elapsed_time_starts_at_zero_with_other_words(clock: Clock) -> None:
    waiting = Waiting("reading frames", clock)
    clock.now += 3.2
    assert waiting.line() == "reading frames, 3 s"
    waiting.say("reading frames")
    assert waiting.line() == "reading frames, 3 s"
    waiting.say("loading tiny")
    assert waiting.line() == "loading tiny…"
    clock.now += 65
    assert waiting.line() == "loading tiny, 1:05"


def test_line_shows_the_step_of_its_own_thread_only() -> None:
    waiting = Waiting("thinking")
    others = Background(lambda _: Waiting("reading").line()).result()
    with running(prompt()):
        elsewhere = Background(lambda _: Waiting("reading").line()).result()
        here = waiting.line()
    assert others == elsewhere == "reading…"
    assert here.startswith("reading the prompt 462 of 1,232 tokens")
    assert waiting.line() == "thinking…"


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("panel", [True, False])
def test_panels_of_runs_show_the_step_in_one_line(
    tty: Callable[..., Tty], clock: Clock, columns: int, panel: bool
) -> None:
    terminal = tty(COLUMNS=str(columns))
    batch, run = BatchProgress(Counters(), clock), RunProgress(clock)
    step = prompt()
    step.began = clock.now - 17
    with running(step):
        batch.waiting.say("answering")
        run.waiting.say("answering")
        Screen().err.print(BatchPanel(batch) if panel else run)
    (line,) = [line for line in terminal.screen(columns).display if line.strip()]
    assert "462 of 1,232" in line
    assert ("(last time 46 s)" in line) == (columns == 80)
