"""Usage errors: one line that says what is wrong, one that says what was perhaps meant."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["aks"], "panda: aks is not a command\n       did you mean panda ask?\n"),
        (["xyz"], "panda: xyz is not a command\n       see panda --help\n"),
        (
            ["ask", "--modle", "tiny"],
            "panda: panda ask has no option --modle\n       did you mean --model?\n",
        ),
        (
            ["--model", "tiny", "ask", "clip.mp4", "why?"],
            "panda: options come after the command\n"
            "         panda ask --model tiny clip.mp4 'why?'\n",
        ),
        (["ask"], "panda: VIDEO is missing\n       usage: panda ask VIDEO QUESTION...\n"),
        (
            ["ask", "clip.mp4"],
            "panda: QUESTION is missing\n       usage: panda ask VIDEO QUESTION...\n",
        ),
        (
            ["ask", "", "why?"],
            "panda: VIDEO is empty\n       for example:\n"
            '         panda ask clip.mp4 "what happens?"\n',
        ),
        (["frames", "--save"], "panda: --save needs a FILE\n       see panda frames --help\n"),
        (["ask", "a", "--seed"], "panda: --seed needs an N\n       see panda ask --help\n"),
        (["ask", "--json=1"], "panda: --json takes no value\n       see panda ask --help\n"),
        (
            ["frames", "a", "b", "c"],
            "panda: too many arguments: b c\n       usage: panda frames VIDEO\n",
        ),
    ],
)
def test_usage_error_is_two_lines_on_stderr_and_exits_with_2(panda, arguments, expected):
    done = panda(*arguments)
    assert done.stderr.decode() == expected
    assert done.stdout == b""
    assert done.returncode == 2


def test_video_in_place_of_a_command_suggests_ask(panda, home):
    (home / "my clip.mp4").touch()
    said = panda("my clip.mp4", "why?").stderr.decode()
    assert "\n         panda ask 'my clip.mp4' \"what happens?\"\n" in said


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--frames", "0", "--frames: cannot look at 0 frames"),
        ("--frames", "9", "--frames: cannot look at 9 frames"),
        ("--frames", "999", "--frames: cannot look at 999 frames"),
        ("--max-tokens", "many", "--max-tokens: 'many' is not a whole number"),
        ("--temperature", "-1", "--temperature: -1 is not a number from 0 upwards"),
        ("--temperature", "nan", "--temperature: nan is not a number from 0 upwards"),
        ("--seed", "-3", "--seed: -3 is not between 0 and 9223372036854775807"),
        ("--quant", "3bit", "--quant: '3bit' is not one of auto, 4bit, 8bit, none"),
        ("--device", "gpu", "--device: 'gpu' is not one of auto, cpu, cuda, cuda:N"),
        ("--model", "", "--model: is empty"),
        ("--from", "1:99", "--from: '1:99' is not a time: minutes and seconds go up to 59"),
        ("--to", "soon", "--to: 'soon' is not a time"),
    ],
)
def test_invalid_value_is_refused_before_the_video_is_opened(panda, option, value, complaint):
    done = panda("ask", "no-such-file.mp4", "why?", option, value)
    assert done.stderr.decode().splitlines()[0] == f"panda: {complaint}"
    assert done.returncode == 2


def test_reversed_range_is_refused_before_the_video_is_opened(panda):
    done = panda("ask", "no-such-file.mp4", "why?", "--from", "0:03", "--to", "2")
    assert b"the range ends at 0:02" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("words", "message", "command"),
    [
        (
            ["a.mp4", "b.mp4", "why?"],
            "b.mp4 is a file, not a question",
            "ask a.mp4 b.mp4 -q 'why?'",
        ),
        (
            ["a.mp4", "b.mp4"],
            "b.mp4 is a file, not a question",
            "ask a.mp4 b.mp4 -q 'What happens?'",
        ),
        (
            ["a.mp4", "why?", "clips"],
            "clips is a directory, not a question",
            "ask a.mp4 clips -q 'why?'",
        ),
        (
            ["a.mp4", "gone.mp4", "why?"],
            "gone.mp4 is the name of a video, not a question",
            "ask a.mp4 gone.mp4 -q 'why?'",
        ),
        (["why?", "a.mp4"], "the video comes first, then the questions", "ask a.mp4 'why?'"),
        (
            ["why?", "and?", "a.mp4", "b.mp4"],
            "the video comes first",
            "ask a.mp4 b.mp4 -q 'why?' -q 'and?'",
        ),
    ],
)
def test_video_in_place_of_a_question_is_refused_with_the_right_command(
    panda, home, words, message, command
):
    for name in ("a.mp4", "b.mp4"):
        (home / name).write_bytes(b"no video")
    (home / "clips").mkdir()
    done = panda("ask", *words)
    assert done.returncode == 2
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith(f"panda: {message}")
    assert lines[-1] == f"         panda {command}"


@pytest.mark.parametrize("arguments", [["ask", "-", "why?"], ["chat", "-"], ["frames", "-"]])
def test_video_from_stdin_is_refused(panda, arguments):
    done = panda(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(b"panda: a video cannot be read from standard input\n")
