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
        (["ask"], "panda: VIDEO is missing\n       usage: panda ask VIDEO QUESTION...\n"),
        (
            ["ask", "clip.mp4"],
            "panda: QUESTION is missing\n       usage: panda ask VIDEO QUESTION...\n",
        ),
        (
            ["ask", "", "why?"],
            'panda: VIDEO is empty\n       for example: panda ask clip.mp4 "what happens?"\n',
        ),
    ],
)
def test_a_usage_error_is_two_lines_on_stderr_and_exit_2(panda, arguments, expected):
    done = panda(*arguments)
    assert done.stderr.decode() == expected
    assert done.stdout == b""
    assert done.returncode == 2


def test_a_video_without_a_command_is_answered_with_ask(panda, home):
    (home / "clip.mp4").touch()
    assert "did you mean panda ask clip.mp4 ...?" in panda("clip.mp4", "why?").stderr.decode()


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--frames", "0", "--frames: 0 is not between 1 and 512"),
        ("--frames", "9", "--frames: the model cannot look at 9 frames"),
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
def test_a_bad_value_is_refused_before_the_video_is_looked_at(panda, option, value, complaint):
    done = panda("ask", "no-such-file.mp4", "why?", option, value)
    assert done.stderr.decode().splitlines()[0] == f"panda: {complaint}"
    assert done.returncode == 2


def test_a_range_that_ends_before_it_starts_is_refused_before_the_video_is_looked_at(panda):
    done = panda("ask", "no-such-file.mp4", "why?", "--from", "0:03", "--to", "2")
    assert b"the range ends at 0:02" in done.stderr
    assert done.returncode == 2
