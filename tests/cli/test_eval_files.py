"""`panda eval`: what it reads and writes, and what is done before a judge is asked."""

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.test_eval import predictions
from tests.fake_judge import fake_judge

KEYS = {"files", "comparison", "blind", "judge"}
FILE_KEYS = {
    *("file", "questions", "answered", "without_reference", "clustered_by", "measures"),
    *("by_type", "calibration", "calibration_error", "coverage", "benchmark", "published"),
    *("unanswered", "not_judged", "ignored"),
}


def test_json_always_has_the_documented_keys(panda, home):
    predictions(home / "a.jsonl")
    results = json.loads(panda("eval", "a.jsonl", "--json").stdout)
    assert results.keys() == KEYS
    assert results["files"][0].keys() == FILE_KEYS
    both = json.loads(panda("eval", "a.jsonl", "--compare", "a.jsonl", "--json").stdout)
    assert both["comparison"].keys() == {
        *("with", "differences", "questions", "unanswered", "not_judged", "ignored")
    }


def test_answers_come_from_standard_input(panda, home):
    predictions(home / "a.jsonl")
    whole = json.loads(panda("eval", "a.jsonl", "--json").stdout)
    piped = panda("eval", "-", "--json", stdin=(home / "a.jsonl").read_bytes())
    assert json.loads(piped.stdout)["files"][0]["measures"] == whole["files"][0]["measures"]
    assert panda("eval", "-", "-", stdin=b"").returncode == 2


def test_a_table_in_a_pipe_has_no_colour_and_is_never_cut(panda, home):
    name = "long " * 60
    line = {"id": "1", "video": "v.mp4", "question": f"{name}\x1b[31m?", "answer": "dog"}
    (home / "a.jsonl").write_text(json.dumps(line | {"pred": "dog"}) + "\n")
    (home / "b.jsonl").write_text(json.dumps(line | {"pred": f"[red]{name}cat"}) + "\n")
    done = panda("eval", "a.jsonl", "--compare", "b.jsonl", FORCE_COLOR="1", COLUMNS="40")
    (row,) = [each for each in done.stdout.decode().splitlines() if each.startswith("first ")]
    assert f"{name}\\x1b[31m?" in row
    assert f"[red]{name}cat" in row
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--report", "notes"], "notes has another report.md"),
        (["--report", "a.jsonl"], "cannot write the report to a.jsonl"),
        (["--judge-replies", "notes/report.md"], "is not a file of judge replies"),
        (["--judge-replies", "notes"], "cannot write the judge's replies to notes"),
        (["--judge-prompt", "a.jsonl"], "cannot read the judge prompts in a.jsonl"),
        (["--benchmark", "x"], "there is no benchmark 'x'"),
    ],
)
def test_nothing_is_asked_where_results_have_no_place(panda, home, options, said):
    pytest.importorskip("openai")
    pytest.importorskip("matplotlib")
    predictions(home / "a.jsonl")
    (home / "notes").mkdir()
    (home / "notes" / "report.md").write_text("mine")
    with fake_judge() as judge:
        done = panda("eval", "a.jsonl", "--judge", "m", "--judge-url", judge.url, *options)
    assert (done.returncode, done.stdout, judge.requests) == (2, b"", [])
    assert said in done.stderr.decode()
    assert (home / "notes" / "report.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("package", "options"), [("matplotlib", ["--report", "r"]), ("openai", ["--judge", "m"])]
)
def test_a_package_that_is_missing_is_named_with_the_command(panda, home, package, options):
    predictions(home / "a.jsonl")
    (home / "hidden").mkdir()
    (home / "hidden" / f"{package}.py").write_text("raise ImportError")
    path = [str(home / "hidden"), *filter(None, sys.path)]
    done = panda("eval", "a.jsonl", *options, PYTHONPATH=":".join(path), OPENAI_API_KEY="k")
    assert (done.returncode, done.stdout) == (2, b"")
    assert package in done.stderr.decode()
    assert "pip install 'pandacli[eval]'" in done.stderr.decode()


def test_ctrl_c_keeps_the_replies_and_ends_with_130(environment, home):
    pytest.importorskip("openai")
    predictions(home / "a.jsonl", count=40)
    replies = home / "replies.jsonl"
    with fake_judge(lambda _: "slow") as judge:
        options = ["--judge=m", "--judge-url", judge.url, "--judge-jobs=2"]
        options += ["--judge-replies", str(replies)]
        run = subprocess.Popen(
            [sys.executable, "-m", "pandacli", "eval", "a.jsonl", *options],
            env=environment,
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        deadline = time.monotonic() + 60
        while not replies.exists() or replies.read_bytes().count(b"\n") < 3:
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=30)
    assert (run.returncode, out) == (130, b"")
    assert err.decode().splitlines() == [
        "panda: judging 40 answers",
        "panda: the replies of the judge are kept: the same command resumes",
    ]
    assert replies.read_bytes().endswith(b"\n")
