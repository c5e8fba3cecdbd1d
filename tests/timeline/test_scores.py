"""Scores on disk: what is found again, and what happens to a database that cannot be used."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pandacli.timeline import scores as module
from pandacli.timeline.scores import ScoreStore, file_state, score_key

KEYS = [score_key(number=number) for number in range(2000)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "scores.sqlite"


@pytest.fixture
def said() -> list[str]:
    """The notices of `store`."""
    return []


@pytest.fixture
def store(path: Path, said: list[str]) -> Callable[..., ScoreStore]:
    """Opens the store as a process of its own would."""
    return lambda budget=10**8: ScoreStore(budget, path, said.append)


def fill(store: ScoreStore, count: int = 3) -> None:
    with store:
        for number, key in enumerate(KEYS[:count]):
            store.keep(key, number / len(KEYS))


def found(store: ScoreStore) -> int:
    """How many of the keys a store finds."""
    with store:
        return sum(store.find(key) is not None for key in KEYS)


def test_score_is_found_exactly_as_it_was_kept(store: Callable[..., ScoreStore]) -> None:
    with store() as first:
        first.keep(KEYS[0], 1 / 3)
        first.keep_length("digest", 12.34)
    with store() as second:
        assert (second.find(KEYS[0]), second.find(KEYS[1])) == (1 / 3, None)
        assert (second.length("digest"), second.length("other")) == (12.34, None)
        assert second.count == 1


def test_reading_makes_no_file(store: Callable[..., ScoreStore], path: Path) -> None:
    assert found(store()) == store().count == store().total_bytes == 0
    assert not path.parent.exists()


@pytest.mark.parametrize("where", ["first page", "all", "tables"])
def test_damaged_database_is_set_aside_with_one_notice(
    store: Callable[..., ScoreStore], path: Path, said: list[str], where: str
) -> None:
    fill(store(), 500)
    if where == "tables":
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE entries")
        connection.close()
    else:
        content = bytearray(path.read_bytes())
        start = 0 if where == "first page" else 100  # an intact header comes first
        content[start:4096] = b"\xa5" * (4096 - start)
        path.write_bytes(content)
    damaged = path.read_bytes()
    with store() as opened:
        assert opened.find(KEYS[0]) is None
        opened.keep(KEYS[1], 0.5)
        assert opened.find(KEYS[1]) == 0.5
    assert said == [f"the scores in {path} were damaged: they are computed again"]
    assert path.with_name("scores.sqlite.damaged").read_bytes() == damaged
    assert found(store()) == 1


def test_score_that_is_no_probability_is_not_found(
    store: Callable[..., ScoreStore], path: Path
) -> None:
    fill(store(), 4)
    with sqlite3.connect(path) as connection:
        for key, value in zip(KEYS, ("yes", None, 7.5, b"\x00"), strict=False):
            connection.execute("UPDATE entries SET value = ? WHERE key = ?", (value, key))
    connection.close()
    assert found(store()) == 0


def test_database_of_a_newer_version_stays_as_it_is(
    store: Callable[..., ScoreStore], path: Path, said: list[str]
) -> None:
    fill(store())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = path.read_bytes()
    with store() as opened:
        assert opened.find(KEYS[0]) is None
        opened.keep(KEYS[5], 0.5)
    assert path.read_bytes() == before
    assert said == [f"scores are not kept: {path} belongs to a newer version of panda"]
    assert store().clear()
    assert not path.exists()


@pytest.mark.parametrize("obstacle", ["file", "folder"])
def test_place_that_cannot_be_written_is_one_notice(
    store: Callable[..., ScoreStore], path: Path, said: list[str], obstacle: str
) -> None:
    if obstacle == "file":
        path.parent.write_text("no folder")
    else:
        path.mkdir(parents=True)
    with store() as opened:
        for key in KEYS[:3]:
            opened.keep(key, 0.5)
            assert opened.find(key) is None
    assert len(said) == 1
    assert said[0].startswith(f"scores cannot be kept: {path}: ")


def test_read_only_database_is_read(
    store: Callable[..., ScoreStore], path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store())
    connect = sqlite3.connect
    monkeypatch.setattr(  # as root, who may write everything, would get it
        sqlite3,
        "connect",
        lambda place, **how: connect(f"file:{place}?mode=ro", uri=True, **how),
    )
    with store() as opened:
        assert opened.find(KEYS[1]) == 1 / len(KEYS)
        for key in KEYS[3:6]:
            opened.keep(key, 0.5)
        assert opened.find(KEYS[3]) is None
        assert opened.find(KEYS[2]) == 2 / len(KEYS)
    assert said == [f"scores cannot be kept: {path}: attempt to write a readonly database"]


def test_two_processes_write_at_the_same_time(path: Path, store: Callable[..., ScoreStore]) -> None:
    script = (
        "import sys; from pathlib import Path; from pandacli.timeline.scores import *\n"
        "with ScoreStore(path=Path(sys.argv[1]), notice=print) as store:\n"
        "    for number in range(int(sys.argv[2]), 60, 2):\n"
        "        store.keep(score_key(number=number), 0.5)\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    running = [
        subprocess.Popen([*command, first], stdout=subprocess.PIPE, text=True) for first in "01"
    ]
    assert [process.communicate(timeout=60)[0] for process in running] == ["", ""]
    assert found(store()) == 60


def test_oldest_scores_are_removed_beyond_the_budget(
    store: Callable[..., ScoreStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000_000_000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    budget = 40_000
    with store(budget) as opened:
        for key in KEYS[:1200]:
            now[0] += 100_000
            opened.keep(key, 0.5)
            assert opened.find(KEYS[0]) == 0.5
            opened._record_uses()
        assert path.stat().st_size <= budget + 4096
        kept = [number for number in range(1200) if opened.find(KEYS[number]) is not None]
    assert kept[0] == 0  # it was used all the time
    assert kept[1:] == list(range(kept[1], 1200))
    assert len(kept) > 300


def test_clear_empties_a_database_that_another_process_has_open(
    store: Callable[..., ScoreStore], path: Path
) -> None:
    fill(store(), 1000)
    path.with_name("scores.sqlite.damaged").write_bytes(bytes(100_000))
    before = store().total_bytes
    with store() as other:
        assert other.find(KEYS[0]) is not None
        assert store().clear()
        assert other.find(KEYS[0]) is None
        other.keep(KEYS[7], 0.5)
    assert found(store()) == 1
    assert store().total_bytes < before / 4


def test_digest_is_computed_again_only_after_a_change(
    store: Callable[..., ScoreStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLED", -1.0)
    hashed = []
    real = module.clip_digest
    monkeypatch.setattr(
        module, "clip_digest", lambda path, whole: hashed.append(path) or real(path, whole=whole)
    )
    clip = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m'\n.mp4"))
    clip.write_bytes(b"one")
    with store() as opened:
        first = opened.digest(clip)
    with store() as opened:
        assert opened.digest(clip) == first
        assert len(hashed) == 1
        times = clip.stat().st_atime_ns, clip.stat().st_mtime_ns
        clip.write_bytes(b"two")
        os.utime(clip, ns=times)  # size and mtime are as before, ctime is not
        assert opened.digest(clip) != first


def test_digest_of_a_file_that_has_just_changed_is_not_kept(
    store: Callable[..., ScoreStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next change may have the same time, where a file system counts in seconds."""
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"one")
    state = file_state(clip)
    monkeypatch.setattr(module, "file_state", lambda _: state)
    with store() as opened:
        first = opened.digest(clip)
        clip.write_bytes(b"two")
        assert opened.digest(clip) != first
