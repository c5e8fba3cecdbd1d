"""`panda chat` over a pipe: each line is a question, each answer a line."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from pandacli import Panda
from pandacli.chat.chat import Chat
from pandacli.chat.conversation import Turn
from pandacli.chat.transcript import read_transcript
from pandacli.errors import DeviceError, ModelError, UsageError
from pandacli.terminal.console import Screen
from pandacli.terminal.piped_chat import PipedChat
from pandacli.terminal.text import sanitize
from tests.chat.conftest import OTHER, QUESTION, StartChat, sampled_clip

Pipe = Callable[..., Chat]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pipe(start_chat: StartChat, monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """Sends bytes to stdin and runs the line-by-line chat."""

    def pipe(sent: bytes, *, stats: bool = False, quant: str = "auto", **more: object) -> Chat:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(sent)))
        chat = start_chat(**more)
        PipedChat(chat, Screen(), sampled_clip, stats=stats, quant=quant).run()
        return chat

    return pipe


def test_answers_each_line_with_one_line(pipe: Pipe, capsys: Capture) -> None:
    chat = pipe(f"{QUESTION}\n\n   \r\n{OTHER}".encode())
    assert [turn.question for turn in chat.turns] == [QUESTION, OTHER]
    printed = capsys.readouterr()
    assert printed.out.split("\n")[:-1] == [sanitize(turn.answer) for turn in chat.turns]
    assert printed.err == "panda: the answer was cut off after 6 tokens: raise --max-tokens\n" * 2


def test_second_question_sees_the_first_turn(pipe: Pipe, panda: Panda) -> None:
    chat = pipe(f"{QUESTION}\n{OTHER}\n".encode())
    first, second = chat.turns
    fresh = panda.open(chat.clip.frames, num_frames=4)
    shown = fresh.ask(OTHER, history=[(QUESTION, first.ids)], max_tokens=6)
    assert second.answer == shown.text


def test_empty_input_prints_nothing_and_keeps_no_log(
    pipe: Pipe, capsys: Capture, tmp_path: Path
) -> None:
    pipe(b"\n")
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_invalid_utf8_is_an_error_after_earlier_answers(pipe: Pipe, capsys: Capture) -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        pipe(f"{QUESTION}\n".encode() + b"\xff\xfe\nand?\n")
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("error", [DeviceError("out of memory"), KeyboardInterrupt()])
def test_interrupted_answer_is_logged_as_interrupted(
    pipe: Pipe, interrupt_after: Callable[..., None], tmp_path: Path, error: BaseException
) -> None:
    interrupt_after(8, error)
    with pytest.raises(type(error)):
        pipe(f"{QUESTION}\n{OTHER}\n".encode())
    whole, cut = read_transcript(tmp_path / "log.json").turns
    assert (whole.finish_reason, cut.finish_reason) == ("length", "interrupted")


def test_answer_is_logged_when_stdout_is_closed(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def closed(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("sys.stdout.write", closed)
    with pytest.raises(BrokenPipeError):
        pipe(QUESTION.encode())
    assert len(read_transcript(tmp_path / "log.json").turns) == 1


def test_unwritable_log_is_reported_once(pipe: Pipe, capsys: Capture, tmp_path: Path) -> None:
    chat = pipe(f"{QUESTION}\n{OTHER}\n".encode(), log=tmp_path / "missing" / "log.json")
    assert len(chat.turns) == 2
    assert capsys.readouterr().err.count("the conversation is not kept") == 1


def test_model_that_fails_to_load_is_an_error(pipe: Pipe) -> None:
    def load(_: object) -> Panda:
        raise ModelError("damaged")

    with pytest.raises(ModelError):
        pipe(QUESTION.encode(), load=load)


def test_notices_go_to_stderr(
    pipe: Pipe, capsys: Capture, panda: Panda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panda, "quant", "8bit")
    turns = [Turn(" ".join(["circle"] * 30), "yes")] * 30
    pipe(f"{QUESTION}\n{OTHER}\n".encode(), turns=turns, stats=True)
    shown = capsys.readouterr().err
    assert shown.count("small runs in 8 bits") == 1
    assert shown.count("forgotten: its first") == 1
    assert shown.count("cut off after 6 tokens") == 2
    assert shown.count("tokens/s") == 2
    assert shown.count("model and clip") <= 1, "loading is paid once"


def test_closed_stdin_is_an_error(start_chat: StartChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="closed"):
        PipedChat(start_chat(), Screen(), sampled_clip).run()


def test_slash_command_in_a_pipe_is_an_error(pipe: Pipe, capsys: Capture) -> None:
    with pytest.raises(UsageError, match="line 2: /stats works only where") as raised:
        pipe(f"{QUESTION}\n/stats\n{OTHER}\n".encode())
    assert raised.value.hint
    assert capsys.readouterr().out.count("\n") == 1
    with pytest.raises(UsageError, match="line 1: /nope is not a command"):
        pipe(b"/nope\n")


def test_exit_word_ends_a_pipe_and_leading_space_escapes_a_slash(pipe: Pipe) -> None:
    for leave in ("/exit", "exit", "Quit"):
        chat = pipe(f" /what is this?\n{leave}\n{OTHER}\n".encode())
        assert [turn.question for turn in chat.turns] == ["/what is this?"]
