"""`panda chat`: its options, saved conversations, and errors before the first question."""

import io
import json
import shutil
import sys

import pytest

from pandacli.cli.entry import run
from pandacli.terminal import prompt
from pandacli.terminal import repl as session
from pandacli.terminal.console import Screen

QUESTION, OTHER = "What happens?", "Is there a circle?"


@pytest.fixture(autouse=True)
def _home(home, monkeypatch):
    """An empty home, which is the working directory."""
    for name in ("NO_LOG", "NO_FRAMES", "MODEL"):
        monkeypatch.delenv(f"PANDA_{name}", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(home)


@pytest.fixture
def chat(monkeypatch, checkpoint):
    """Runs `panda chat` with the small random model; its exit code."""

    def chat(*arguments, stdin=QUESTION, model=checkpoint):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        named = ["--model", str(model)] if model else []
        return run(["chat", *map(str, arguments), *named, "--max-tokens", "6", "--quiet"])

    return chat


def logs(home):
    return sorted((home / "state" / "panda" / "conversations").glob("*.json"))


def last_log(home):
    (path,) = logs(home)
    return json.loads(path.read_text())


def questions(record):
    return [turn["question"] for turn in record["turns"]]


def test_conversation_is_saved(chat, clip, home):
    assert chat(clip, "--from", "0.5", "--frames", "4", "--system", "Be kind.") == 0
    log = last_log(home)
    assert (log["video"], log["from"], log["to"]) == (str(clip), 0.5, None)
    assert (log["frames"], log["system"]) == (4, "Be kind.")
    assert questions(log) == [QUESTION]


def test_continue_restores_the_last_conversation(chat, clip, home, checkpoint):
    chat(clip, "--from", "0.00001", "--frames", "4", "--system", "Be kind.")
    before = last_log(home)
    assert chat("--continue", stdin=OTHER, model=None) == 0
    after = last_log(home)
    assert questions(after) == [QUESTION, OTHER]
    assert after | {"turns": None} == before | {"turns": None}
    assert after["model"] == str(checkpoint)


def test_continue_works_from_another_folder(chat, clip, home, checkpoint, monkeypatch):
    (home / "small").symlink_to(checkpoint)
    chat(clip, model="./small")
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    assert chat("--continue", stdin=OTHER, model=None) == 0
    assert questions(last_log(home)) == [QUESTION, OTHER]


def test_continue_accepts_another_video(chat, clip, home):
    chat(clip, "--from", "0.5")
    other = shutil.copy(clip, home / "other.mp4")
    assert chat(other, "--continue", stdin=OTHER) == 0
    log = last_log(home)
    assert (log["video"], log["from"]) == (str(other), None)
    assert questions(log) == [QUESTION, OTHER]


def test_option_overrides_the_saved_conversation(chat, clip, home):
    chat(clip, "--frames", "4", "--system", "Be kind.")
    chat("--continue", "--frames", "8", "--system", "Be brief.")
    log = last_log(home)
    assert (log["frames"], log["system"]) == (8, "Be brief.")


def test_loaded_conversation_is_saved_in_a_new_log(chat, clip, home):
    chat(clip)
    (log,) = logs(home)
    saved = log.rename(home / "talk.json")
    text = saved.read_text()
    assert chat("--load", saved, stdin=OTHER) == 0
    assert questions(last_log(home)) == [QUESTION, OTHER]
    assert saved.read_text() == text


@pytest.mark.parametrize(
    ("options", "variable", "kept"),
    [(["--no-log"], "", False), ([], "1", False), (["--log"], "1", True)],
)
def test_no_log_saves_nothing(chat, clip, home, monkeypatch, options, variable, kept):
    monkeypatch.setenv("PANDA_NO_LOG", variable)
    assert chat(clip, *options) == 0
    assert (home / "state").exists() == kept


def test_unwritable_state_folder_prints_a_notice(clip, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/state")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run(["chat", str(clip), "--model", "tiny"]) == 0
    said = capsys.readouterr().err
    assert "panda: the conversation is not kept: /dev/null/state" in said


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ([], 2, "VIDEO is missing"),
        (["--continue", "--load", "talk.json"], 2, "are two conversations"),
        (["--continue"], 2, "there is no conversation to continue"),
        (["nowhere.mp4"], 3, "there is no file nowhere.mp4"),
        (["--load", "nowhere.json"], 3, "cannot read nowhere.json"),
        (["--load", "talk.md"], 3, "talk.md is not a saved conversation"),
    ],
)
def test_usage_error_names_the_mistake(chat, home, capsys, arguments, code, complaint):
    (home / "talk.md").write_text("# clip.mp4\n")
    assert chat(*arguments) == code
    assert complaint in capsys.readouterr().err
    assert not (home / "state").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "the last conversation cannot be read"),
        ("[" * 100_000, "the last conversation cannot be read"),
        (None, "the video is gone: /gone.mp4"),
    ],
)
def test_unreadable_last_conversation_is_an_error(chat, clip, home, capsys, text, complaint):
    chat(clip)
    (log,) = logs(home)
    log.write_text(log.read_text().replace(str(clip), "/gone.mp4") if text is None else text)
    assert chat("--continue", model=None) == 3
    assert complaint in capsys.readouterr().err


def test_saved_video_with_an_invalid_name_is_reported_as_gone(chat, clip, home, capsys):
    chat(clip)
    (log,) = logs(home)
    log.write_text(log.read_text().replace(clip.name, "x" * 300))
    assert chat("--continue", model=None) == 3
    assert "the video is gone: " in capsys.readouterr().err


def test_missing_model_is_an_error_before_the_first_question(chat, clip, capsys):
    assert chat(clip, model="nowhere/model") == 4
    assert sys.stdin.read() == QUESTION
    assert "nowhere/model" in capsys.readouterr().err


def test_damaged_model_is_an_error(chat, clip, home, checkpoint, capsys):
    shutil.copytree(checkpoint, home / "damaged")
    (weights,) = (home / "damaged").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    assert chat(clip, model=home / "damaged") == 4
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "variable", "drawn"),
    [
        ([], "", True),
        (["--no-frames"], "", False),
        ([], "1", False),
        (["--show-frames"], "1", True),
    ],
)
def test_frames_are_drawn_unless_disabled(monkeypatch, clip, checkpoint, options, variable, drawn):
    monkeypatch.setenv("PANDA_NO_FRAMES", variable)
    seen = in_a_terminal(monkeypatch)
    assert run(["chat", str(clip), "--model", str(checkpoint), *options]) == 0
    assert seen["pictures"] is drawn


def test_lines_typed_in_a_terminal_are_executed(monkeypatch, clip, checkpoint, home):
    seen = in_a_terminal(monkeypatch)
    options = ["--frames", "4", "--system", "Be kind.", "--seed", "3", "--no-log"]
    assert run(["chat", str(clip), "--model", str(checkpoint), *options]) == 0
    part = seen["sample"](seen["chat"].clip.source, num_frames=4)
    assert (part.num_frames, part.system, part.image_size) == (4, "Be kind.", 112)
    assert seen["chat"].options.seed == 3
    assert set(seen["parsers"]) == {"temperature", "max-tokens", "seed", "frames"}
    assert seen["history"] is None
    assert not (home / "state").exists()


def test_questions_are_saved_in_the_state_folder(monkeypatch, clip, checkpoint, home):
    seen = in_a_terminal(monkeypatch)
    run(["chat", str(clip), "--model", str(checkpoint)])
    assert seen["history"] == home / "state" / "panda" / "questions"


def in_a_terminal(monkeypatch):
    """Lets the next chat believe that it is in a terminal; what it would have shown there."""
    seen = {}

    class Keyboard(io.StringIO):
        def isatty(self):
            return True

    class Prompt:
        def __init__(self, toolbar, history, failure):
            assert toolbar()
            assert failure() is None
            seen["history"] = history

    class Repl:
        def __init__(self, chat, _prompt, _screen, sample, parsers, **more):
            seen.update(more, chat=chat, sample=sample, parsers=parsers)

        def run(self):
            seen["chat"].wait(10)

    monkeypatch.setattr("sys.stdin", Keyboard())
    monkeypatch.setattr(Screen, "stdout_is_terminal", True)
    monkeypatch.setattr(Screen, "is_interactive", True)
    monkeypatch.setattr(prompt, "Prompt", Prompt)
    monkeypatch.setattr(session, "Repl", Repl)
    return seen
