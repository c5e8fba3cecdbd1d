"""`panda batch --check`: problems on stdout, and the exit codes, without a model."""

import subprocess
import sys

import psutil
import pytest

from tests.cli.emulator import Emulator
from tests.cli.test_batch import as_lines, parsed
from tests.cli.test_batch_interrupted import BLOCKED

GOOD = {"video": "clip.mp4", "question": "Why?"}
BAD = [{"video": "clip.mp4"}, GOOD, GOOD | {"video": "\x1b[31m\n.mp4"}, GOOD | {"from": 60}]
SAID = [
    "q.jsonl:1: the field 'question' is missing; there are 'video'",
    r"\x1b[31m\n.mp4: no such file in HERE (1 question)",
    "clip.mp4: the range starts at 1:00, past the end (the clip is 0:02 long) (1 question)",
]
HINT = "if the videos are in another folder, name it with --video-dir"
SUMMARY = "3 of 4 questions cannot be answered: 1 line cannot be read, 2 of 3 clips cannot be used"


@pytest.fixture
def write(home, clip):
    """Writes a file of questions beside a clip."""
    (home / "clip.mp4").write_bytes(clip.read_bytes())

    def questions(records, name="q.jsonl"):
        (home / name).write_bytes(as_lines(records))
        return name

    return questions


def test_problems_are_lines_of_stdout(panda, home, write):
    done = panda("batch", write(BAD), "--check")
    assert done.stdout.decode().replace(str(home), "HERE").splitlines() == SAID
    assert done.stderr.decode().splitlines() == [f"panda: {HINT}", f"panda: {SUMMARY}"]
    assert done.returncode == 1


def test_without_problems_only_the_summary_is_said(panda, home, write):
    before = sorted(home.rglob("*"))
    done = panda("batch", write([GOOD, GOOD]), "--check", "-o", "answers.csv")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"panda: 2 questions on 1 clip can be answered\n"
    assert sorted(home.rglob("*")) == sorted([*before, home / "q.jsonl"])


def test_json_is_an_object_a_problem(panda, write):
    done = panda("batch", write(BAD), "--check", "--json", "--quiet")
    assert [line["error"]["kind"] for line in parsed(done.stdout)] == ["record", "clip", "question"]
    assert (done.returncode, done.stderr) == (1, b"")


def test_questions_are_read_from_a_pipe(panda, write):
    write([])
    done = panda("batch", "-", "--check", stdin=as_lines(BAD[:2]))
    assert done.stdout.decode() == SAID[0].replace("q.jsonl", "standard input") + "\n"
    assert done.returncode == 1


def test_options_of_a_run_are_honoured(panda, home, write):
    (home / "clips").mkdir()
    (home / "clip.mp4").rename((home / "clips" / write([])).with_name("clip.mp4"))
    (home / "t.txt").write_text("video\tquestion\nclip.mp4\tWhy?\n")
    command = ("batch", "t.txt", "--check", "--video-dir", "clips", "--format", "csv")
    assert panda(*command).returncode == 0
    late = panda(*command, "--from", "1:00")
    assert late.stdout.decode().startswith("clips/clip.mp4: the range starts at 1:00")
    assert late.returncode == 1
    shards = [panda(*command, "--shard", f"{part}/2").stderr.decode() for part in (1, 2)]
    assert sorted(shards) == [
        "panda: 1 question on 1 clip can be answered\n",
        "panda: there are no questions in this shard\n",
    ]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["none.jsonl"], 3),
        (["clip.mp4"], 3),
        (["q.jsonl", "-o", "q.jsonl"], 2),
        (["q.jsonl", "--workers", "2"], 2),
    ],
)
def test_what_cannot_be_checked_has_an_exit_code(panda, write, arguments, code):
    write([GOOD])
    done = panda("batch", *arguments, "--check")
    assert (done.returncode, done.stdout) == (code, b"")
    assert len(done.stderr.splitlines()) <= 2


def test_fail_fast_stops_at_the_first_problem(panda, write):
    done = panda("batch", write(BAD), "--check", "--fail-fast")
    assert (done.returncode, done.stdout.decode().splitlines()) == (1, SAID[:1])


def test_torch_is_not_imported(environment, home, write):
    program = (
        "import sys; from pandacli.cli.entry import run; run(sys.argv[1:]);"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", program, "batch", write([GOOD]), "--check"]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


def test_bar_and_problems_share_a_terminal(environment, home, write):
    write(BAD)
    terminal = Emulator(
        *("batch", str(home / "q.jsonl"), "--check"), environment=environment, script=BLOCKED
    )
    assert terminal.end() == 1
    shown = "".join(line.ljust(80) for line in terminal.text().splitlines()).split()
    problems = " ".join(SAID).replace("q.jsonl", f"{home}/q.jsonl").replace("HERE", str(home))
    said = f"{problems} panda: {HINT} panda: {SUMMARY}".replace(
        "clip.mp4: the", f"{home}/clip.mp4: the"
    )
    assert "".join(shown) == "".join(said.split())  # nothing of the bar is left
    assert b"checking the clips" in terminal.sent


def test_ctrl_c_ends_at_once_and_keeps_what_was_found(environment, home, write):
    """The decoder never returns, so that the key cannot be pressed too late."""
    write(BAD)
    blocked = {"BLOCKED": "decoder", "BLOCKED_AT": str(home / "blocked")}
    terminal = Emulator(
        *("batch", str(home / "q.jsonl"), "--check"),
        environment=environment | blocked,
        script=BLOCKED,
    )
    try:
        terminal.until("checking the clips")
        terminal.until("1 cannot be used")
        children = psutil.Process(terminal.process.pid).children(recursive=True)
        terminal.keys("\x03")
        assert terminal.end() == 130
    finally:
        terminal.process.close(force=True)
    assert "'question' is missing" in terminal.text()
    assert b"Traceback" not in terminal.sent
    assert not psutil.wait_procs(children, timeout=10)[1]
