"""`panda find` as users run it: ranking, errors, interruption, and second runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pandacli.timeline.scores import ScoreStore, score_key
from tests.cli.emulator import Emulator
from tests.video.clips import write_clip

WITHOUT_MODEL = """
import sys
from pandacli.cli import main
from pandacli.inference.planning import loader
from pandacli.video import prefetch

def fail(*_):
    raise RuntimeError("the model is loaded, or a video decoded")

loader.load = prefetch.WorkerProcess.__init__ = fail
main()
"""
TEXT = "a circle moves"


@pytest.fixture
def clips(home):
    """Four clips, of which one has a name that must not reach a terminal."""
    folder = home / "clips"
    folder.mkdir()
    for number in range(3):
        write_clip(folder / f"{number}.mp4", 10, rate=10, numbers=range(number, number + 10))
    write_clip(folder / "\x1b]0;pwned\x07\n[red].mp4", 20, rate=10)
    return folder


@pytest.fixture
def ask(panda, clips, checkpoint):
    """Runs `panda find clips TEXT` with options, on the small random model."""

    def find(*options, text=TEXT, place=clips, **how):
        return panda("find", place, text, "--model", checkpoint, "--frames", "4", *options, **how)

    return find


def kept(home):
    return home / "models" / "scores.sqlite"


def test_second_run_loads_no_model_and_decodes_nothing(ask, environment, home, clips, checkpoint):
    first = ask()
    assert first.returncode == 0, first.stderr
    assert first.stderr == b"panda: 4 clips scored\n"
    rows = [line.split("\t") for line in first.stdout.decode().splitlines()]
    shares = [float(share) for share, _ in rows]
    assert shares == sorted(shares, reverse=True)
    shown = {str(clips / f"{n}.mp4") for n in range(3)} | {
        f"{clips}/\\x1b]0;pwned\\x07\\n[red].mp4"
    }
    assert {path for _, path in rows} == shown
    command = [sys.executable, "-c", WITHOUT_MODEL, "find", str(clips), TEXT, "--frames", "4"]
    second = subprocess.run(
        [*command, "--model", str(checkpoint)],
        env=environment,
        cwd=home,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (second.returncode, second.stdout) == (0, first.stdout), second.stderr
    assert second.stderr == b"panda: 0 clips scored, 4 known from before\n"


def test_broken_clips_are_named_and_nothing_is_kept_with_cache_size_zero(ask, clips, home):
    (clips / "empty.mp4").touch()
    (clips / "text\x1b[31m.mp4").write_text("no video")
    done = ask("--quiet", PANDA_CACHE_SIZE="0")
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 4)
    said = done.stderr.decode().splitlines()
    assert sum("empty.mp4" in line for line in said) == 1
    assert sum("text\\x1b[31m.mp4" in line for line in said) == 1
    assert b"\x1b" not in done.stderr
    assert not kept(home).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clips"], "what to look for is missing"),
        (["a star"], "the place to look in is missing"),
        (["a star", "clips"], "what to look for comes last"),
        (["nowhere", "a star"], "there is no file or folder nowhere"),
        (["clips", "a star", "--json", "--format", "csv"], "two kinds of output"),
        (["clips", "a star", "--format", "srt"], "not one of csv"),
        (["clips", "a star", "--top", "0"], "not between 1 and"),
        (["clips", " "], "the question is empty"),
        (["clips", b"\xff"], "not UTF-8"),
    ],
)
def test_wrong_usage_is_refused(module_panda, tmp_path, words, said):
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"x")
    done = module_panda("find", *(str(folder) if word == "clips" else word for word in words))
    assert done.returncode in (2, 3)
    assert said in done.stderr.decode()
    assert done.stdout == b""


def test_cache_lists_and_clears_scores(panda, home):
    with ScoreStore(path=kept(home)) as scores:
        for number in range(4):
            scores.keep(score_key(number=number), 0.5)
    assert b"panda: 4 scores, " in panda("cache").stderr
    assert json.loads(panda("cache", "--json").stdout)["scores"]["count"] == 4
    assert panda("cache", "--clear").stderr == b"panda: removed 0 bytes and 4 scores\n"
    assert json.loads(panda("cache", "--json").stdout)["scores"]["count"] == 0


@pytest.mark.slow
def test_damaged_scores_are_computed_again(ask, home):
    first = ask()
    kept(home).write_bytes(b"no database, but long enough to look like one" * 100)
    second = ask()
    assert (second.returncode, second.stdout) == (0, first.stdout)
    notices = second.stderr.decode().splitlines()
    assert notices == [
        f"panda: the scores in {kept(home)} were damaged: they are computed again",
        "panda: 4 clips scored",
    ]


@pytest.mark.slow
def test_frames_of_the_best_are_drawn_on_a_terminal(environment, clips, checkpoint):
    words = ["find", str(clips), TEXT, "--model", str(checkpoint), "--frames", "4", "--top", "2"]
    terminal = Emulator(*words, environment=environment | {"TERM": "xterm-256color"})
    assert terminal.end() == 0
    assert "▄" in terminal.text()
    assert "1: 0." in terminal.text()
    assert b"\x1b]0;" not in terminal.sent


@pytest.fixture
def many(clips):
    """Sixty clips with contents of their own."""
    for number in range(60):
        shutil.copy(clips / "0.mp4", clips / f"copy{number}.mp4")
        with (clips / f"copy{number}.mp4").open("ab") as file:
            file.write(b"\0\0\0\x09free" + bytes([number]))
    return clips


def stopped_early(environment, many, checkpoint, home, number):
    """Starts a search, sends a signal once some scores are kept, and waits for its end."""
    command = [sys.executable, "-m", "pandacli", "find", str(many), TEXT, "--frames", "4"]
    process = subprocess.Popen(
        [*command, "--model", str(checkpoint), "--top", "100"],
        env=environment,
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while ScoreStore(path=kept(home)).count < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, number)
    output, said = process.communicate(timeout=60)
    return process.returncode, output, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
@pytest.mark.slow
def test_resumes_after(environment, many, checkpoint, home, ask, number):
    code, output, said = stopped_early(environment, many, checkpoint, home, number)
    again = ask("--top", "100")
    assert again.returncode == 0, again.stderr
    ranked = again.stdout.splitlines()
    assert len(ranked) == 64
    known = int(again.stderr.split(b"scored, ")[1].split()[0])
    assert 0 < known < 64
    if number == signal.SIGINT:
        assert code == 130
        assert len(output.splitlines()) == known
        assert set(output.splitlines()) <= set(ranked)
        assert f"panda: interrupted after {known} clips; the same command resumes" in said.decode()
        assert b"Traceback" not in said
