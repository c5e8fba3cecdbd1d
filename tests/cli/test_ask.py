"""`panda ask`: what goes to stdout, what to stderr, and what reaches the engine."""

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pandacli.cli import ask
from pandacli.terminal.console import Screen

FAKE_ENGINE = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))


def events(home):
    return [json.loads(line) for line in (home / "log").read_text().splitlines()]


def test_stdout_has_only_the_answer(fake_engine):
    done = fake_engine("ask", "x.mp4", "what happens?")
    assert done.stdout == b"You asked: what happens?\n"
    assert done.stderr == b""
    assert done.returncode == 0


def test_frames_are_read_before_the_model_is_loaded(fake_engine, home):
    fake_engine("ask", "x.mp4", "why?", FAKE_LOG=str(home / "log"))
    order = [event["event"] for event in events(home)]
    assert order == ["frames", "resolve", "load", "open", "ask", "closed"]


def test_every_option_reaches_the_engine(fake_engine, home):
    options = "--from 1:02 --to 70.5 --frames 12 --model m --quant 8bit --device cuda:1"
    options += " --engine bitsandbytes"
    options += " --system Be-brief. --max-tokens 99 --temperature 0.5 --seed 7"
    options += " --stop END --stop ##"
    fake_engine("ask", "x.mp4", "why?", *options.split(), FAKE_LOG=str(home / "log"))
    frames, _, load, opened, asked, _ = events(home)
    assert frames == {"event": "frames", "start": 62.0, "end": 70.5, "num_frames": 12}
    how = {"device": "cuda:1", "quant": "8bit", "engine": "bitsandbytes"}
    assert load == {"event": "load", "model": "m", **how}
    assert opened == {"event": "open", "num_frames": 12, "system": "Be-brief."}
    assert asked == {
        "event": "ask",
        "question": "why?",
        "max_tokens": 99,
        "temperature": 0.5,
        "seed": 7,
        "stop": ["END", "##"],
        "logprobs": False,
    }


def test_several_questions_share_one_load_and_one_clip(fake_engine, home):
    done = fake_engine("ask", "x.mp4", "one?", "two?", FAKE_LOG=str(home / "log"))
    assert done.stdout == b"You asked: one?\nYou asked: two?\n"
    names = [event["event"] for event in events(home)]
    assert (names.count("load"), names.count("open"), names.count("ask")) == (1, 1, 2)


def test_one_answer_keeps_its_line_breaks(fake_engine):
    done = fake_engine("ask", "x.mp4", "q", FAKE_ANSWER="one\ntwo")
    assert done.stdout == b"one\ntwo\n"


def test_several_answers_to_a_pipe_take_one_line_each(fake_engine):
    done = fake_engine("ask", "x.mp4", "p", "q", FAKE_ANSWER="one\ntwo")
    assert done.stdout == b"one two\none two\n"


def test_json_is_one_object_on_one_line(fake_engine):
    done = fake_engine("ask", "x.mp4", "one?", "two?", "--json", "--model", "m")
    assert done.stdout.count(b"\n") == 1
    record = json.loads(done.stdout)
    assert record["video"] == "x.mp4"
    assert record["model"] == "m"
    assert record["frames"][1] == {"index": 30, "time": 1.0}
    assert [answer["question"] for answer in record["answers"]] == ["one?", "two?"]
    assert record["answers"][0]["answer"] == "You asked: one?"
    assert record["answers"][0]["finish_reason"] == "stop"
    assert record["answers"][0]["stats"]["prefix_tokens"] == 1232


def test_json_of_one_question_has_the_same_shape(fake_engine):
    record = json.loads(fake_engine("ask", "x.mp4", "one?", "--json").stdout)
    assert len(record["answers"]) == 1


def test_stats_go_to_stderr_as_plain_lines(fake_engine):
    done = fake_engine("ask", "x.mp4", "why?", "--stats")
    assert done.stdout == b"You asked: why?\n"
    frames, tokens, first, decode, memory = done.stderr.decode().splitlines()
    assert frames == "frames       8 at 0:00, 0:01, 0:02, 0:03, 0:04, 0:05, 0:06, 0:07"
    assert tokens == "tokens       1232 prefix, 9 question, 3 answer; 1241 new, 0 reused"
    assert first.startswith("first token  ")
    assert decode == "decode       0.30 s, 10.0 tokens/s"
    assert memory == "memory       1.5 GB"


def test_first_answer_is_timed_from_program_start_and_next_from_its_question(
    fake_engine,
):
    started = time.perf_counter()
    done = fake_engine("ask", "x.mp4", "why?", "and?", "--stats", FAKE_DELAY="0.3")
    passed = time.perf_counter() - started
    first, second = re.findall(rb"^first token  (.*)$", done.stderr, re.MULTILINE)
    total, parts = first.split(b" s: ")
    # 0.3 s each for the frames and the model, and 0.75 s that the fake says it took
    assert 1.35 < float(total) < passed + 0.75
    times = {name: float(seconds) for seconds, name in re.findall(rb"([\d.]+) s (\w+)", parts)}
    assert times[b"frames"] >= 0.3
    assert times[b"model"] >= 0.3
    assert times[b"prefill"] == 0.75
    assert sum(times.values()) == pytest.approx(float(total), abs=0.03)
    assert second == b"0.75 s", "what was paid once is counted once"


def test_output_of_a_library_goes_to_stderr(fake_engine):
    done = fake_engine("ask", "x.mp4", "why?", FAKE_NOISE="[ INFO:0] loaded\n")
    assert done.stdout == b"You asked: why?\n"
    assert done.stderr == b"[ INFO:0] loaded\n"


@pytest.mark.parametrize(("step", "sampled"), [("9.9", None), ("13", "1:44, one frame each 13 s")])
def test_sparse_sampling_of_a_long_video_prints_a_notice(fake_engine, step, sampled):
    said = fake_engine("ask", "x.mp4", "why?", FAKE_STEP=step).stderr.decode()
    expected = (
        f"panda: 8 frames from {sampled}; --every or --from/--to looks closer\n" if sampled else ""
    )
    assert said == expected


def test_notice_of_the_decoder_goes_to_stderr(fake_engine):
    done = fake_engine("ask", "x.mp4", "why?", FAKE_NOTICE="frame 9 stands in for frame 10")
    assert done.stderr == b"panda: frame 9 stands in for frame 10\n"


def test_automatic_quantisation_prints_a_notice(fake_engine):
    done = fake_engine("ask", "x.mp4", "why?", FAKE_QUANT="8bit")
    said = b"panda: video-panda-7b runs in 8 bits on the CPU (torch); see --quant and --device\n"
    assert done.stderr == said


@pytest.mark.parametrize(
    ("quant", "said"),
    [
        ("none", "on cuda:1 and cuda:0; see --device"),
        ("4bit", "in 4 bits on cuda:1 and cuda:0 (torch); see --quant and --device"),
    ],
)
def test_several_gpus_print_a_notice(fake_engine, quant, said):
    done = fake_engine("ask", "x", "why?", FAKE_QUANT=quant, FAKE_DEVICES="cuda:1 cuda:0")
    assert done.stderr.decode() == f"panda: video-panda-7b runs {said}\n"


def test_requested_quantisation_prints_no_notice(fake_engine):
    assert fake_engine("ask", "x.mp4", "why?", "--quant", "8bit", FAKE_QUANT="8bit").stderr == b""


def test_quiet_hides_notices(fake_engine):
    done = fake_engine("ask", "x.mp4", "why?", "--quiet", FAKE_NOTICE="something")
    assert done.stderr == b""


def test_truncated_answer_prints_a_notice(fake_engine):
    done = fake_engine("ask", "x.mp4", "why?", "--max-tokens", "3")
    assert done.stderr == b"panda: the answer was cut off after 3 tokens: raise --max-tokens\n"


def test_dash_reads_all_of_stdin_stripped(fake_engine):
    done = fake_engine("ask", "x.mp4", "-", stdin=b"\n  what\n happens? \n\n")
    assert done.stdout == b"You asked: what\n happens?\n"


@pytest.mark.parametrize(
    ("questions", "stdin", "complaint"),
    [
        ([""], b"", "the question is empty"),
        (["  \n"], b"", "the question is empty"),
        (["-"], b" \n", "the question is empty"),
        (["-", "-"], b"why?", "standard input (-) can be read for one question only"),
        (["-"], b"\xff\xfe", "the question on standard input is not UTF-8 text"),
        (["-"], b"a" * 200_000, "the question on standard input has over 100000 characters"),
        (["-"], b"\xf0\x9f\x90\xbc" * 100_001, "the question on standard input has over 100000"),
        (["-"], b"a" * 400_000 + b"\xf0\x9f", "the question on standard input has over 100000"),
        ([b"\xff"], b"", "the question is not UTF-8 text: \\xff"),
    ],
)
def test_invalid_question_is_refused_before_the_video_is_opened(panda, questions, stdin, complaint):
    done = panda("ask", "no-such-file.mp4", *questions, stdin=stdin)
    assert done.stderr.decode().splitlines()[0].startswith(f"panda: {complaint}")
    assert done.returncode == 2


def test_question_length_is_limited_in_characters_not_bytes(fake_engine):
    question = "ж" * 100_000
    done = fake_engine("ask", "x.mp4", "-", stdin=question.encode(), FAKE_ANSWER="yes")
    assert (done.stdout, done.stderr) == (b"yes\n", b"")


@pytest.mark.parametrize(("quiet", "said"), [(False, "panda: type the question"), (True, "")])
def test_question_from_the_keyboard_prints_an_instruction(monkeypatch, capsys, quiet, said):
    class Keyboard(io.TextIOWrapper):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Keyboard(io.BytesIO(b"why?\n")))
    assert ask._read_questions(["-"], Screen(quiet=quiet)) == ["why?"]
    assert capsys.readouterr().err[:24] == said


def test_question_after_double_dash_may_start_with_a_dash(fake_engine):
    assert fake_engine("ask", "--", "x.mp4", "-1?").stdout == b"You asked: -1?\n"


def test_control_characters_of_an_answer_are_escaped(fake_engine):
    done = fake_engine("ask", "x.mp4", "q", FAKE_ANSWER="a\x1b[31mb\rc\x9bd \u202ee\x07")
    assert done.stdout.decode() == "a\\x1b[31mb\\rc\\x9bd \\u202ee\\x07\n"


def test_control_characters_in_json_are_escaped(fake_engine):
    done = fake_engine("ask", "x.mp4", "q", "--json", FAKE_ANSWER="a\x1b[31m\x9b\u202e")
    assert not {"\x1b", "\x9b", "\u202e"} & set(done.stdout.decode())
    assert json.loads(done.stdout)["answers"][0]["answer"] == "a\x1b[31m\x9b\u202e"


def test_json_is_utf_8_or_ascii_in_another_encoding(fake_engine):
    said = "視 é 😀 \u0085"
    for encoding, shown in (("utf-8", "視 é 😀 \\u0085"), ("latin-1", "\\u8996 \\u00e9 \\ud83d")):
        done = fake_engine(
            "ask", "x.mp4", "q", "--json", FAKE_ANSWER=said, PYTHONIOENCODING=encoding
        )
        assert shown in done.stdout.decode()
        assert json.loads(done.stdout)["answers"][0]["answer"] == said


def test_rich_markup_is_printed_as_text(fake_engine):
    done = fake_engine("ask", "x.mp4", "[bold]what?[/bold]", "--stats")
    assert done.stdout == b"You asked: [bold]what?[/bold]\n"


def test_closed_pipe_exits_with_141_and_no_message(environment):
    command = [*FAKE_ENGINE, "ask", "x.mp4", "why?"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command, env=environment, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_full_disk_is_reported_for_an_answer(environment):
    command = [*FAKE_ENGINE, "ask", "x.mp4", "why?"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, env=environment, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.stderr == b"panda: cannot write the answer: No space left on device\n"
    assert done.returncode == 1


def test_closed_stdin_and_stderr_are_no_error(environment, home):
    command = " ".join(
        [*FAKE_ENGINE, "ask", "x.mp4", "why?", ">", str(home / "out"), "2>&-", "<&-"]
    )
    assert subprocess.run(command, shell=True, env=environment, check=False).returncode == 0
    assert (home / "out").read_text() == "You asked: why?\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "x.mp4", "why?"],
        ["demo"],
        ["frames", "x.mp4"],
        ["chat", "x.mp4"],
        ["batch", "questions.jsonl", "--output", "-"],
        ["batch", "questions.jsonl", "--output", "-", "--output-format", "csv"],
        ["batch", "questions.jsonl", "--json"],
        ["batch", "-"],
    ],
)
def test_closed_stdout_is_an_error_before_anything_is_computed(environment, home, arguments):
    command = " ".join([*FAKE_ENGINE, *arguments, ">&-"])
    log = {"FAKE_LOG": str(home / "log")}
    done = subprocess.run(
        command, shell=True, env=environment | log, stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"panda: standard output is closed\n")
    assert not (home / "log").exists()


def test_full_disk_is_reported_for_help(environment):
    for arguments in (["--help"], ["ask", "--help"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [*FAKE_ENGINE, *arguments],
                env=environment,
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
            )
        assert done.stderr == b"panda: cannot write the output: No space left on device\n"
        assert done.returncode == 1
