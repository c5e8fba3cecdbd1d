"""The file that keeps how long slow steps took."""

import json
import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pandacli.background import Step
from pandacli.inference import durations
from pandacli.inference.durations import last_seconds, timed
from tests.terminal.conftest import Clock

KIND = "reading the prompt: tiny none torch cpu"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the steps and of their file."""
    clock = Clock()
    monkeypatch.setattr(durations, "monotonic", clock)
    monkeypatch.setattr(durations, "Step", lambda *args: Step(*args, began=clock.now))
    return clock


def spend(clock: Clock, seconds: float, kind: str = KIND, total: int = 100) -> None:
    with timed("reading the prompt", total, "tokens", kind):
        clock.now += seconds


def test_last_time_is_that_of_another_amount(home: Path, clock: Clock) -> None:
    assert last_seconds(KIND, 100) is None
    spend(clock, 40)
    assert last_seconds(KIND, 100) == 40
    assert last_seconds(KIND, 25) == 10
    assert last_seconds("another", 100) is None
    assert [path.name for path in home.iterdir()] == ["durations.json"]


@pytest.mark.usefixtures("home")
def test_running_step_knows_its_last_time(clock: Clock) -> None:
    spend(clock, 40)
    with timed("reading the prompt", 50, "tokens", KIND) as step:
        assert step.last == 20


def test_short_and_failed_steps_are_not_kept(home: Path, clock: Clock) -> None:
    spend(clock, 0.9)
    with suppress(ValueError), timed("reading", 9, "tokens", KIND):
        clock.now += 60
        raise ValueError
    assert not home.exists()


@pytest.mark.usefixtures("home")
def test_one_kind_is_written_at_most_once_a_minute(clock: Clock) -> None:
    for seconds in (10, 20, 29):
        spend(clock, seconds)
        spend(clock, seconds / 10, "another")
    assert last_seconds(KIND, 100) == 10
    assert last_seconds("another", 100) == 1
    spend(clock, 50)
    assert last_seconds(KIND, 100) == 50


def test_oldest_kinds_are_forgotten(home: Path, clock: Clock) -> None:
    for number in range(durations._MOST + 5):
        spend(clock, 2, f"kind {number}")
    clock.now += 60
    spend(clock, 3, "kind 5")
    spend(clock, 3, "newest")
    kept = json.loads((home / "durations.json").read_text())
    assert len(kept) == durations._MOST
    assert "kind 6" not in kept
    assert [*kept][-2:] == ["kind 5", "newest"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"%s": 3}' % KIND.encode(),
        b'{"%s": [0, 0]}' % KIND.encode(),
        b'{"%s": [-4, 100]}' % KIND.encode(),
        b'{"%s": [4, "100"]}' % KIND.encode(),
        b'{"%s": [1e400, 100]}' % KIND.encode(),
        b'{"%s": [true, 100]}' % KIND.encode(),
        b'{"%s": [4, 100, 2]}' % KIND.encode(),
        b"{" + b" " * (1 << 20),
    ],
)
def test_damaged_file_is_as_good_as_none_and_is_replaced(
    home: Path, clock: Clock, content: bytes
) -> None:
    home.mkdir()
    (home / "durations.json").write_bytes(content)
    assert last_seconds(KIND, 100) is None
    spend(clock, 4)
    assert last_seconds(KIND, 100) == 4


def test_valid_entries_beside_a_damaged_one_are_kept(home: Path, clock: Clock) -> None:
    home.mkdir()
    (home / "durations.json").write_text(json.dumps({"a": [4, 100], "b": "c"}))
    spend(clock, 4)
    assert last_seconds("a", 100) == 4
    assert [*json.loads((home / "durations.json").read_text())] == ["a", KIND]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="all folders can be written")
def test_read_only_folder_is_no_error(home: Path, clock: Clock) -> None:
    home.mkdir()
    home.chmod(stat.S_IRUSR | stat.S_IXUSR)
    spend(clock, 4)
    assert last_seconds(KIND, 100) is None


@pytest.mark.parametrize("name", ["file/below", "folder"])
def test_path_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, name: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "durations.json").mkdir(parents=True)
    monkeypatch.setenv("PANDA_HOME", str(tmp_path / name))
    spend(clock, 4)
    assert last_seconds(KIND, 100) is None
    left = [path.name for path in (tmp_path / "folder").iterdir()]
    assert left == ["durations.json"], "nothing partial is left"


WRITER = """
import sys
from pandacli.background import Step
from pandacli.inference import durations
durations._INTERVAL = 0
for number in range(200):
    durations._keep(f"{sys.argv[1]} {number % 20}", 100, 1.0 + number)
"""


def test_file_stays_whole_while_two_processes_write_it(home: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, name], env={**os.environ})
        for name in ("first", "second")
    ]
    path, reads = home / "durations.json", 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            json.loads(path.read_text())
            reads += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reads > 10
    kept = json.loads(path.read_text())
    assert all(entry[0] >= 1 and entry[1] == 100 for entry in kept.values())
    assert [p.name for p in home.iterdir()] == ["durations.json"]
