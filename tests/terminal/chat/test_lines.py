"""A conversation without a terminal: a question a line, an answer a line."""

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
from pandacli.terminal.slash_commands import answer_lines
from pandacli.terminal.text import sanitize
from tests.terminal.chat.conftest import OTHER, QUESTION

Pipe = Callable[..., Chat]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pipe(start: Callable[..., Chat], monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """Sends bytes to standard input, and answers them."""

    def pipe(sent: bytes, *, stats: bool = False, quant: str = "auto", **more: object) -> Chat:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(sent)))
        talk = start(**more)
        answer_lines(talk, Screen(), stats=stats, quant=quant)
        return talk

    return pipe


def test_each_line_is_a_question_and_each_answer_a_line(pipe: Pipe, capsys: Capture) -> None:
    talk = pipe(f"{QUESTION}\n\n   \r\n{OTHER}".encode())
    assert [turn.question for turn in talk.turns] == [QUESTION, OTHER]
    printed = capsys.readouterr()
    assert printed.out.split("\n")[:-1] == [sanitize(turn.answer) for turn in talk.turns]
    assert printed.err == "panda: the answer was cut off after 6 tokens: raise --max-tokens\n" * 2


def test_the_second_answer_sees_the_first(pipe: Pipe, panda: Panda) -> None:
    talk = pipe(f"{QUESTION}\n{OTHER}\n".encode())
    first, second = talk.turns
    fresh = panda.open(talk.subject.frames, num_frames=4)
    told = fresh.ask(OTHER, history=[(QUESTION, first.ids)], max_tokens=6)
    assert second.answer == told.text


def test_no_question_is_no_answer_and_no_log(pipe: Pipe, capsys: Capture, tmp_path: Path) -> None:
    pipe(b"\n")
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_is_no_text_ends_it_after_what_came_before(pipe: Pipe, capsys: Capture) -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        pipe(f"{QUESTION}\n".encode() + b"\xff\xfe\nand?\n")
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("error", [DeviceError("out of memory"), KeyboardInterrupt()])
def test_an_end_in_the_middle_keeps_what_there_was(
    pipe: Pipe, interrupted: Callable[..., None], tmp_path: Path, error: BaseException
) -> None:
    interrupted(8, error)
    with pytest.raises(type(error)):
        pipe(f"{QUESTION}\n{OTHER}\n".encode())
    whole, cut = read_transcript(tmp_path / "log.json").turns
    assert (whole.finish_reason, cut.finish_reason) == ("length", "interrupted")


def test_an_answer_that_nobody_takes_is_kept(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def closed(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("sys.stdout.write", closed)
    with pytest.raises(BrokenPipeError):
        pipe(QUESTION.encode())
    assert len(read_transcript(tmp_path / "log.json").turns) == 1


def test_a_log_that_cannot_be_written_costs_no_answer(
    pipe: Pipe, capsys: Capture, tmp_path: Path
) -> None:
    talk = pipe(f"{QUESTION}\n{OTHER}\n".encode(), log=tmp_path / "missing" / "log.json")
    assert len(talk.turns) == 2
    assert capsys.readouterr().err.count("the conversation is not kept") == 1


def test_a_model_that_cannot_be_loaded_is_an_error(pipe: Pipe) -> None:
    def load(_: object) -> Panda:
        raise ModelError("damaged")

    with pytest.raises(ModelError):
        pipe(QUESTION.encode(), load=load)


def test_what_concerns_the_answer_is_told(
    pipe: Pipe, capsys: Capture, panda: Panda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panda, "quant", "8bit")
    turns = [Turn(" ".join(["circle"] * 30), "yes")] * 30
    pipe(f"{QUESTION}\n{OTHER}\n".encode(), turns=turns, stats=True)
    said = capsys.readouterr().err
    assert said.count("small runs in 8 bits") == 1
    assert said.count("forgotten: its first") == 1
    assert said.count("cut off after 6 tokens") == 2
    assert said.count("tokens/s") == 2
    assert said.count("model and clip") <= 1, "loading is paid once"


def test_a_closed_input_is_an_error(
    start: Callable[..., Chat], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="closed"):
        answer_lines(start(), Screen())


def test_a_command_in_a_pipe_is_an_error_and_no_question(pipe: Pipe, capsys: Capture) -> None:
    with pytest.raises(UsageError, match="line 2: /stats works only where") as raised:
        pipe(f"{QUESTION}\n/stats\n{OTHER}\n".encode())
    assert raised.value.hint
    assert capsys.readouterr().out.count("\n") == 1
    with pytest.raises(UsageError, match="line 1: /nope works only where"):
        pipe(b"/nope\n")


def test_a_pipe_may_end_with_exit_and_a_space_makes_a_slash_a_question(pipe: Pipe) -> None:
    for leave in ("/exit", "exit", "Quit"):
        talk = pipe(f" /what is this?\n{leave}\n{OTHER}\n".encode())
        assert [turn.question for turn in talk.turns] == ["/what is this?"]
