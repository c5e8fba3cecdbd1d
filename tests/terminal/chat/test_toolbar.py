"""The line under the prompt: the model, what it is doing, how full its context is."""

from collections.abc import Callable
from threading import Event

import pytest

from pandacli import Panda
from pandacli.chat.chat import Chat
from pandacli.errors import ModelError
from pandacli.terminal.repl import toolbar


def test_the_toolbar_tells_how_full_the_context_is(start: Callable[..., Chat]) -> None:
    talk = start()
    talk.wait(10)
    assert toolbar(talk).startswith(" small · ")
    assert toolbar(talk).endswith(" of 512 tokens")


def test_the_toolbar_names_what_is_not_the_model_as_published(
    start: Callable[..., Chat], monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = start()
    talk.wait(10)
    monkeypatch.setattr(talk.panda.result(), "quant", "8bit")
    assert " · 8bit torch · " in toolbar(talk)


def test_the_toolbar_tells_what_is_being_done(start: Callable[..., Chat]) -> None:
    go_on = Event()

    def load(_: object) -> Panda:
        go_on.wait(10)
        raise ModelError("damaged")

    talk = start(load)
    assert toolbar(talk) == " small · loading…"
    go_on.set()
    talk.wait(10)
    assert toolbar(talk) == " small"
