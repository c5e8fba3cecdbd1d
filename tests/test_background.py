"""Work in the background: it reports what it does, and its error is raised with its result."""

from threading import Event

import pytest

from pandacli.background import Background, Say
from pandacli.errors import ModelError


def test_result_is_waited_for() -> None:
    begin = Event()
    work = Background(lambda _: begin.wait(10))
    assert not work.ended
    begin.set()
    assert work.result() is True
    assert work.ended


def test_wait_times_out() -> None:
    begin = Event()
    work = Background(lambda _: begin.wait(10))
    assert not work.wait(0.01)
    begin.set()
    assert work.wait(10)


def test_reports_and_end_are_announced() -> None:
    seen: list[tuple[str, bool]] = []
    listening = Event()

    def load(say: Say) -> None:
        listening.wait(10)
        say("loading")
        say("looking")

    work = Background(load, lambda: seen.append((work.doing, work.ended)))
    listening.set()
    work.result()
    while len(seen) < 3:
        work.wait(0.01)
    assert seen == [("loading", False), ("looking", False), ("looking", True)]


@pytest.mark.parametrize("error", [ModelError("damaged"), KeyError("a fault"), SystemExit(3)])
def test_error_is_raised_by_result(error: BaseException) -> None:
    def fail(_: Say) -> None:
        raise error

    work = Background(fail)
    with pytest.raises(type(error)) as raised:
        work.result()
    assert raised.value is error is work.error
