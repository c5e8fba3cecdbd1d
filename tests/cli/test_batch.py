"""`panda batch` as its users run it: what it writes where, and the exit codes."""

import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pandacli.batch.job import Batch
from pandacli.batch.results_file import ResultsFile
from pandacli.cli.entry import run
from pandacli.cli.frames import CLIP
from pandacli.terminal.batch_display import BatchDisplay

TINY = ("--model", "tiny")
QUESTIONS = ["What happens?", "Is there a circle?", "Which shape appears?"]


def as_lines(records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def parsed(lines):
    return [json.loads(line) for line in lines.splitlines()]


@pytest.fixture(scope="module")
def asked(clip):
    """Good questions about two clips, in turns, and lines that are bad in three ways."""
    good = [
        {"video": video, "question": question, "id": f"{question} {number}", "split": "test"}
        for question in QUESTIONS
        for number, video in enumerate((str(CLIP), str(clip)))
    ]
    bad = [b"not json\n", b'{"video": "a.mp4"}\n', b'{"video": "a.mp4", "question": "\x1b[31m"}\n']
    return as_lines(good[:4]) + b"".join(bad) + as_lines(good[4:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, asked):
    folder = tmp_path_factory.mktemp("asked")
    (folder / "q.jsonl").write_bytes(asked)
    return folder


@pytest.fixture(scope="module")
def first(module_panda, folder):
    """A run with tiny; it takes seconds, so once for all."""
    return module_panda("batch", str(folder / "q.jsonl"), *TINY, "--json", "--stats")


@pytest.fixture(scope="module")
def answers(first, folder):
    """The file of answers of the first run."""
    assert first.returncode == 1, first.stderr.decode()
    return (folder / "q.answers.jsonl").read_bytes()


def test_failed_questions_exit_with_1(first):
    assert first.returncode == 1


def test_json_option_copies_the_results_file_to_stdout(first, answers):
    assert parsed(first.stdout) == parsed(answers)


def test_every_question_line_has_an_answer_line(answers):
    lines = parsed(answers)
    assert sorted(line["line"] for line in lines if "error" in line) == [5, 6, 7]
    assert len({line["id"] for line in lines if "answer" in line}) == 6
    assert all(line["split"] == "test" for line in lines if "answer" in line)


def test_answers_equal_those_of_ask(module_panda, answers):
    done = module_panda("ask", str(CLIP), *QUESTIONS, *TINY, "--json")
    alone = {answer["question"]: answer["answer"] for answer in json.loads(done.stdout)["answers"]}
    together = {
        line["question"]: line["answer"]
        for line in parsed(answers)
        if line.get("video") == str(CLIP)
    }
    assert together == alone


def test_progress_in_a_pipe_is_plain_lines(first):
    said = first.stderr.decode()
    assert said.count("line 5: not JSON") == 1
    assert "panda: 6 of 9 answered, 3 failed" in said
    assert "\x1b" not in said
    rows = dict(line.split("  ", 1) for line in said.splitlines() if "  " in line)
    assert rows["answered"].strip() == "6"
    assert rows["failed"].strip() == "3"
    assert {"frames", "load", "prefix", "decode"} <= set(rows)


def test_repeated_command_retries_only_failed_questions(module_panda, folder, answers):
    again = module_panda("batch", str(folder / "q.jsonl"), *TINY, "--json")
    assert again.returncode == 1
    assert sorted(line["line"] for line in parsed(again.stdout)) == [5, 6, 7]
    assert sorted(parsed((folder / "q.answers.jsonl").read_bytes()), key=str) == sorted(
        parsed(answers), key=str
    )


def test_questions_from_a_pipe_are_answered_into_a_pipe(module_panda, clip):
    records = [{"video": str(clip), "question": question} for question in QUESTIONS]
    done = module_panda(
        "batch", "-", *TINY, "--output-format", "csv", "--quiet", stdin=as_lines(records)
    )
    assert (done.returncode, done.stderr) == (0, b"")
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert sorted(row["question"] for row in rows) == sorted(QUESTIONS)
    assert {row["model"] for row in rows} == {"tiny"}


@pytest.mark.parametrize("view", ["blind", "mirror"])
def test_view_has_a_file_of_its_own(module_panda, folder, clip, view):
    (folder / "seen.jsonl").write_bytes(as_lines([{"video": str(clip), "question": "Why?"}]))
    assert module_panda("batch", str(folder / "seen.jsonl"), *TINY, f"--{view}").returncode == 0
    [line] = parsed((folder / f"seen.answers.{view}.jsonl").read_bytes())
    assert line[view] is True
    assert not (folder / "seen.answers.jsonl").exists()


def test_file_without_questions_prints_a_notice(panda, home):
    (home / "q.jsonl").touch()
    done = panda("batch", "q.jsonl", *TINY)
    assert done.returncode == 0
    # on a busy machine a line before it says what takes long
    assert done.stderr.splitlines()[-1] == b"panda: there are no questions in q.jsonl"


def test_finished_batch_prints_one_line(module_panda, folder, clip):
    records = [{"video": str(clip), "question": question} for question in QUESTIONS]
    (folder / "done.jsonl").write_bytes(as_lines(records))
    command = ("batch", str(folder / "done.jsonl"), *TINY)
    assert module_panda(*command).returncode == 0
    again = module_panda(*command)
    where = folder / "done.answers.jsonl"
    said = f"panda: all {len(QUESTIONS)} are answered already, in {where}"
    assert (again.returncode, again.stderr.decode().splitlines()[-1]) == (0, said)


def test_closed_stdin_is_an_error(environment):
    command = f"{sys.executable} -m pandacli batch - -m tiny <&-"
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, check=False)
    assert done.stderr == b"panda: standard input is closed\n"
    assert done.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_full_disk_is_reported_for_a_table(environment, home):
    (home / "q.csv").write_text("video,question\n")
    command = [sys.executable, "-m", "pandacli", "batch", "q.csv", "-o", "-", "--quiet", *TINY]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*command, "--output-format", "csv"],
            env=environment,
            cwd=home,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.stderr == b"panda: cannot write the answers: No space left on device\n"
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("options", "lines"), [([], False), (["--json"], True), (["-o", "-"], True)]
)
def test_display_is_given_whether_answers_go_to_stdout(monkeypatch, home, options, lines):
    seen = []

    class Seen(BatchDisplay):
        def __init__(self, *arguments, lines_to_stdout, **more):
            super().__init__(*arguments, lines_to_stdout=lines_to_stdout, **more)
            seen.append(lines_to_stdout)

    monkeypatch.setattr("pandacli.terminal.batch_display.BatchDisplay", Seen)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    (home / "q.jsonl").write_text("not JSON\n")
    assert run(["batch", str(home / "q.jsonl"), "-m", "tiny", *options]) == 1
    assert seen == [lines]


def test_slow_plan_without_a_terminal_prints_a_notice(monkeypatch, capsys, home) -> None:
    plan = Batch.plan

    def slowly(*arguments):
        time.sleep(0.4)
        return plan(*arguments)

    monkeypatch.setattr(Batch, "plan", slowly)
    monkeypatch.setattr("pandacli.cli.batch._SLOW", 0.1)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    (home / "q.jsonl").touch()
    assert run(["batch", str(home / "q.jsonl"), "-m", "tiny"]) == 0
    assert capsys.readouterr().err.startswith(f"panda: reading {home / 'q.jsonl'}\n")


def test_unused_choices_are_named_once(panda, home) -> None:
    record = {"video": "none.mp4", "question": "Which?", "options": "a"}
    (home / "q.jsonl").write_bytes(as_lines([record, record]))
    done = panda("batch", "q.jsonl", *TINY)
    assert done.stderr.count(b"no choices can be read from 'options'") == 1


REFUSED = {
    "no questions": (["none.jsonl"], 3, "there is no file none.jsonl"),
    "a video": (["clip.mp4"], 3, "clip.mp4 is not a file of questions"),
    "no model": (["q.jsonl", "-m", "none"], 4, "no model is called 'none'"),
    "no such option": (["q.jsonl", "--colour"], 2, "--colour"),
    "no such size": (["q.jsonl", "--batch-size", "0"], 2, "--batch-size: 0 is not between"),
    "no such shard": (["q.jsonl", "--shard", "4/3"], 2, "--shard: '4/3' is not like 1/4"),
    "two views": (["q.jsonl", "--blind", "--mirror"], 2, "--mirror changes nothing with --blind"),
    "the questions": (["q.jsonl", "-o", "./q.jsonl"], 2, "is the file of the questions"),
    "no folder": (["q.jsonl", "-o", "none/a.jsonl"], 2, "there is no folder none"),
    "a folder": (["q.jsonl", "-o", "."], 2, ". is a folder"),
    "a clip": (
        ["q.jsonl", "-o", "clip.mp4", "--output-format", "csv"],
        2,
        "clip.mp4 already exists and is not an earlier output in the format csv",
    ),
    "a file of others": (
        ["q.jsonl", "-o", "clip.mp4"],
        2,
        "clip.mp4 is not a results file of panda",
    ),
}


@pytest.mark.parametrize(("arguments", "code", "said"), REFUSED.values(), ids=REFUSED)
def test_usage_error_is_two_lines(panda, home, clip, arguments, code, said):
    (home / "q.jsonl").write_bytes(as_lines([{"video": "clip.mp4", "question": "Why?"}]))
    (home / "clip.mp4").write_bytes(clip.read_bytes())
    before = sorted(home.rglob("*"))
    done = panda("batch", *arguments, *(() if "-m" in arguments else TINY))
    assert done.returncode == code
    assert said in done.stderr.decode().splitlines()[0]
    assert len(done.stderr.splitlines()) <= 2
    assert [path for path in sorted(home.rglob("*")) if path.suffix == ".jsonl"] == [
        path for path in before if path.suffix == ".jsonl"
    ]


def test_second_run_on_a_locked_results_file_is_refused(panda, home):
    (home / "q.jsonl").write_bytes(as_lines([{"video": "clip.mp4", "question": "Why?"}]))
    with ResultsFile(home / "q.answers.jsonl"):
        done = panda("batch", "q.jsonl", *TINY)
    assert done.returncode == 2
    assert b"q.answers.jsonl is being written by another run of panda\n" in done.stderr
