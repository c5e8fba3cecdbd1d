"""The input prompt: keys, completion and history, without a terminal."""

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from pandacli.errors import ModelError
from pandacli.terminal.prompt import Prompt

Make = Callable[..., Prompt]

UP, ALT_ENTER = "\x1b[A", "\x1b\r"
PASTE = "\x1b[200~{}\x1b[201~"


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


@pytest.fixture
def make(keys: PipeInput) -> Make:
    del keys  # its application session

    def make(
        history: Path | None = None,
        failure: Callable[[], BaseException | None] = lambda: None,
    ) -> Prompt:
        return Prompt(lambda: "", history, failure=failure)

    return make


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("What?\r", "What?"),
        (f"What{ALT_ENTER}happens?\r", "What\nhappens?"),
        (PASTE.format("one\r\ntwo") + "\r", "one\ntwo"),
        ("half\x03whole\r", "whole"),
        ("no end\x04?\r", "no end?"),
        ("東京 🐼\r", "東京 🐼"),
        ("   \r", "   "),
        (PASTE.format("x" * 20_000) + "\r", "x" * 20_000),
    ],
    ids=["enter", "alt-enter", "paste", "ctrl-c clears", "ctrl-d", "wide", "spaces", "long"],
)
def test_reads_typed_text(make: Make, keys: PipeInput, typed: str, read: str) -> None:
    keys.send_text(typed)
    assert make().read() == read


@pytest.mark.parametrize(
    ("key", "error"), [("\x03", KeyboardInterrupt), ("\x04", EOFError)], ids=["c", "d"]
)
def test_control_keys_raise_on_an_empty_line(
    make: Make, keys: PipeInput, key: str, error: type[BaseException]
) -> None:
    keys.send_text(key)
    with pytest.raises(error):
        make().read()


def test_invalid_utf8_is_read_and_kept_in_history(
    make: Make, keys: PipeInput, tmp_path: Path
) -> None:
    keys.send_bytes(b"caf\xe9 ?\r")
    assert make(tmp_path / "questions").read().startswith("caf")
    assert "+caf" in (tmp_path / "questions").read_text(encoding="utf-8")


def test_history_is_read_from_file(make: Make, keys: PipeInput, tmp_path: Path) -> None:
    for typed in ("first\r", "two\x1b\rlines\r"):
        keys.send_text(typed)
        make(tmp_path / "questions").read()
    again = make(tmp_path / "questions")
    keys.send_text(UP + "\r")
    assert again.read() == "two\nlines"


def test_history_file_is_private(make: Make, keys: PipeInput, tmp_path: Path) -> None:
    keys.send_text("private\r")
    make(tmp_path / "questions").read()
    assert stat.S_IMODE((tmp_path / "questions").stat().st_mode) == 0o600


def test_history_works_without_a_file(make: Make, keys: PipeInput) -> None:
    prompt = make()
    keys.send_text("first\r")
    prompt.read()
    keys.send_text(UP + "\r")
    assert prompt.read() == "first"


def test_unreadable_history_is_ignored(make: Make, keys: PipeInput, tmp_path: Path) -> None:
    keys.send_text("What?\r")
    assert make(tmp_path).read() == "What?"


def test_failure_ends_read_and_keeps_text_in_history(
    make: Make, keys: PipeInput, tmp_path: Path
) -> None:
    failure: list[ModelError] = []

    def failed() -> ModelError | None:
        return failure[0] if failure else None

    prompt = make(tmp_path / "questions", failed)

    def fail() -> str:
        # called while the toolbar is drawn, so while the line is being read
        if prompt._session.default_buffer.text == "half a ques" and not failure:
            failure.append(ModelError("damaged"))
            prompt.refresh()
        return ""

    prompt._session.bottom_toolbar = fail
    keys.send_text("half a ques")
    with pytest.raises(ModelError, match="damaged"):
        prompt.read()
    assert "+half a ques" in (tmp_path / "questions").read_text()


def test_earlier_failure_is_raised_at_once(make: Make) -> None:
    with pytest.raises(ModelError):
        make(None, lambda: ModelError("damaged")).read()


def test_refresh_outside_read_does_nothing(make: Make) -> None:
    make(None, lambda: ModelError("damaged")).refresh()


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("/re", ["/retry", "/reset"]),
        ("/set ", ["max-tokens", "temperature", "seed"]),
        ("/set te", ["temperature"]),
        ("/frames s", ["save"]),
        ("/undo ", []),
        ("What is /re", []),
        ("/re\nfoo", []),
        ("/video {}/", ["clip.mp4", "folder"]),
        ("/video {}/c", ["lip.mp4"]),
        ("/load {}/t", ["alk.json"]),
        ("/save {}/", ["clip.mp4", "folder", "talk.json"]),
        ("/frames save {}/f", ["older"]),
    ],
)
def test_completes_commands_words_and_files(
    make: Make, tmp_path: Path, text: str, completed: list[str]
) -> None:
    for name in ("clip.mp4", "talk.json"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    document = Document(text.format(tmp_path))
    completer = make()._session.completer
    assert completer is not None
    found = completer.get_completions(document, CompleteEvent())
    assert [completion.text for completion in found] == completed
