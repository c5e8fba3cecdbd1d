"""Work in the background: it says what it does, and its end is heard once somebody asks."""

from threading import Event

import pytest

from pandacli.background import Background, Say
from pandacli.errors import ModelError


def test_its_result_is_waited_for() -> None:
    begin = Event()
    work = Background(lambda _: begin.wait(10))
    assert not work.ended
    begin.set()
    assert work.result() is True
    assert work.ended


def test_waiting_gives_up_after_its_time() -> None:
    begin = Event()
    work = Background(lambda _: begin.wait(10))
    assert not work.wait(0.01)
    begin.set()
    assert work.wait(10)


def test_what_it_does_is_told_and_so_is_its_end() -> None:
    told: list[tuple[str, bool]] = []
    listening = Event()

    def load(say: Say) -> None:
        listening.wait(10)
        say("loading")
        say("looking")

    work = Background(load, lambda: told.append((work.doing, work.ended)))
    listening.set()
    work.result()
    while len(told) < 3:
        work.wait(0.01)
    assert told == [("loading", False), ("looking", False), ("looking", True)]


@pytest.mark.parametrize("error", [ModelError("damaged"), KeyError("a fault"), SystemExit(3)])
def test_its_error_is_raised_where_its_result_is_wanted(error: BaseException) -> None:
    def fail(_: Say) -> None:
        raise error

    work = Background(fail)
    with pytest.raises(type(error)) as raised:
        work.result()
    assert raised.value is error is work.error
