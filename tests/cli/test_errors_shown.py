"""Errors a user can cause: one or two lines, an exit code that means something, no traceback."""

import os
import subprocess
import sys

import pytest


def lines(done):
    return done.stderr.decode().splitlines()


@pytest.fixture
def bad_files(home):
    (home / "empty.mp4").touch()
    (home / "text.mp4").write_text("what happens?\n" * 50)
    return home


@pytest.mark.parametrize("name", ["missing.mp4", "empty.mp4", "text.mp4"])
def test_unusable_video_exits_with_3(panda, bad_files, name):
    done = panda("ask", str(bad_files / name), "why?")
    assert done.returncode == 3
    assert name in lines(done)[0]
    assert len(lines(done)) <= 2
    assert done.stdout == b""


def test_bad_video_is_reported_before_a_bad_model(panda):
    assert panda("ask", "missing.mp4", "why?", "--model", "no-such-model").returncode == 3


def test_unknown_model_exits_with_4_and_the_nearest_name(panda, clip):
    done = panda("ask", str(clip), "why?", "--model", "tinny")
    assert lines(done) == ["panda: no model is called 'tinny'", "       did you mean tiny?"]
    assert done.returncode == 4


def test_missing_7b_exits_with_4_and_what_to_do(panda, clip):
    done = panda("ask", str(clip), "why?")
    assert lines(done)[0] == "panda: video-panda-7b is not on this machine"
    assert "--model tiny" in lines(done)[1]
    assert lines(done)[2] == "         panda pull video-panda-7b"
    assert done.returncode == 4


def test_missing_model_is_reported_without_importing_torch(environment, clip):
    script = (
        "import sys\n"
        "from pandacli.cli.entry import run\n"
        f"assert run(['ask', {str(clip)!r}, 'why?']) == 4\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_non_video_is_reported_without_importing_torch(environment, bad_files):
    script = (
        "import sys\n"
        "from pandacli.cli.entry import run\n"
        "assert run(['ask', 'text.mp4', 'why?', '--model', 'tiny']) == 3\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=bad_files, check=True)


def test_video_without_frames_is_reported_while_torch_is_imported(panda, clip, home):
    data = clip.read_bytes()
    start, index = data.index(b"mdat") + 4, data.index(b"moov") - 4
    broken = home / "broken.mp4"
    broken.write_bytes(data[:start] + bytes(index - start) + data[index:])
    done = panda("ask", str(broken), "why?", "--model", "tiny")
    assert done.returncode == 3
    assert lines(done)[0] == f"panda: no frame of {broken} can be decoded"
    assert len(lines(done)) == 2


def test_range_behind_the_end_is_a_usage_error(panda, clip):
    assert panda("ask", str(clip), "why?", "--from", "1:00:00").returncode == 2


def test_control_characters_in_a_file_name_are_escaped(panda):
    done = panda("ask", b"\x1b[31m\xff\n[red]\xc2\x9b.mp4", "why?")
    assert b"\x1b" not in done.stderr
    assert "\\x1b[31m\\xff\\n[red]\\x9b.mp4" in done.stderr.decode()


def test_traceback_is_printed_only_with_debug(panda):
    assert b"Traceback" not in panda("ask", "missing.mp4", "why?").stderr
    for wish in ({"PANDA_DEBUG": "1"}, {}):
        arguments = [] if wish else ["--debug"]
        done = panda("ask", "missing.mp4", "why?", *arguments, **wish)
        assert b"Traceback" in done.stderr
        assert lines(done)[-2].startswith("panda: ")
        assert done.returncode == 3


def test_control_characters_in_a_traceback_are_escaped(panda):
    done = panda("ask", b"\x1b[31m.mp4", "why?", "--debug")
    assert b"Traceback" in done.stderr
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--no-debug"], False),
        (["--debug", "--no-debug"], False),
        (["--no-debug", "--debug"], True),
        (["--no-debug", "--", "--debug"], False),
    ],
)
def test_last_debug_flag_on_the_command_line_wins(panda, options, wanted):
    done = panda("ask", "missing.mp4", "why?", *options, PANDA_DEBUG="1")
    assert (b"Traceback" in done.stderr) == wanted


def test_question_in_place_of_a_command_is_a_usage_error(panda):
    done = panda("what happens? " * 30)
    assert lines(done)[0].endswith("is not a command")
    assert done.returncode == 2


@pytest.mark.parametrize(
    "arguments", [["ask", "missing.mp4", "why?"], ["chat", "missing.mp4"], ["pull", "tinny"]]
)
def test_ray_is_refused_outside_batch_before_anything_slow(panda, arguments):
    done = panda(*arguments, PANDA_ENGINE="ray")
    assert lines(done) == [
        "panda: PANDA_ENGINE: ray is for panda batch",
        "       choose one of auto, torch, bitsandbytes, llama",
    ]
    assert done.returncode == 2


BROKEN = """
import sys, importlib
def broken(*_, **__): raise {error}
importlib.import_module("pandacli.cli.startup").read_clip = broken
from pandacli.cli.entry import run
sys.exit(run(["ask", "x.mp4", "why?"]))
"""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("ValueError('of \\x1b ours')", 70, "panda: unexpected ValueError: of \\x1b ours"),
        ("MemoryError", 5, "panda: out of memory"),
        (
            "importlib.import_module('torch').AcceleratorError('CUDA error: out of memory')",
            5,
            "panda: out of memory",
        ),
        ("KeyboardInterrupt", 130, None),
        ("BrokenPipeError", 141, None),
    ],
)
def test_unexpected_error_is_short(environment, error, code, message):
    command = [sys.executable, "-c", BROKEN.format(error=error)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == code
    assert lines(done)[:1] == ([message] if message else [])
    assert b"Traceback" not in done.stderr


TERMINATED = """
import atexit, os, signal, threading
from pandacli.cli import entry
from pandacli.background import Background

def compute(_):
    Background(lambda _: threading.Event().wait())
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()

entry.run = compute
atexit.register(print, "the interpreter ends")
entry.main()
"""


def test_sigterm_while_a_thread_computes_exits_cleanly(environment):
    command = [sys.executable, "-c", TERMINATED]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, b"", b"")


def test_error_with_closed_stderr_keeps_its_exit_code(environment):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pandacli", "ask", "missing.mp4", "why?"]
    done = subprocess.run(command, env=environment, stdout=writer, stderr=writer, check=False)
    os.close(writer)
    assert done.returncode == 3
