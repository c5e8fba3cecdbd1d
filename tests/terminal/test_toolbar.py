"""The toolbar: model, loading status, context use."""

from threading import Event

import pytest

from pandacli import Panda
from pandacli.errors import ModelError
from pandacli.terminal.repl import toolbar
from tests.chat.conftest import StartChat


def test_toolbar_shows_context_use(start_chat: StartChat) -> None:
    chat = start_chat()
    chat.wait(10)
    assert toolbar(chat).startswith(" small · ")
    assert toolbar(chat).endswith(" of 512 tokens")


def test_toolbar_shows_quantisation_and_engine(
    start_chat: StartChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = start_chat()
    chat.wait(10)
    monkeypatch.setattr(chat.panda.result(), "quant", "8bit")
    assert " · 8bit torch · " in toolbar(chat)


def test_toolbar_shows_loading_and_nothing_after_failure(start_chat: StartChat) -> None:
    go_on = Event()

    def load(_: object) -> Panda:
        go_on.wait(10)
        raise ModelError("damaged")

    chat = start_chat(load)
    assert toolbar(chat) == " small · loading…"
    go_on.set()
    chat.wait(10)
    assert toolbar(chat) == " small"
