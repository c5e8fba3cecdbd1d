"""Prefixes on the disk as files: which go when there is no room, and who may write them."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pandacli.prefix_cache import disk as prefixes_module
from pandacli.prefix_cache.disk import Label, Prefixes, entry_name, prefixes_folder

LABEL = Label("/clips/a.mp4", None, 12.5, 8, "tiny", "none", "torch", 265)
FACTS = {"indices": [0]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "prefixes"


def name(number: int) -> str:
    return entry_name({"clip": number}, {"model": "tiny"})


def content(size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(b"x" * size)

    return write


def add(prefixes: Prefixes, number: int, size: int = 1000) -> bool:
    kept = prefixes.add(name(number), LABEL, FACTS, content(size), size)
    entry = prefixes.find(name(number))
    if entry:  # one second after the other
        os.utime(entry.folder / "entry.json", (1000 + number, 1000 + number))
    return kept


def numbers(prefixes: Prefixes) -> list[int]:
    return [number for number in range(9) if prefixes.find(name(number))]


def test_what_is_added_is_found(folder: Path) -> None:
    add(Prefixes(folder=folder), 1)
    entry = Prefixes(folder=folder).find(name(1))
    assert entry is not None
    assert entry.label == LABEL
    assert entry.frames() == FACTS
    assert entry.kv.read_bytes() == b"x" * 1000
    assert entry.bytes > 1000


def test_only_the_clip_is_known_where_the_rest_differs(folder: Path) -> None:
    prefixes = Prefixes(folder=folder)
    add(prefixes, 1)
    assert prefixes.knows({"clip": 1})
    assert not prefixes.knows({"clip": 2})
    assert prefixes.find(entry_name({"clip": 1}, {"model": "other"})) is None


def test_the_one_unused_for_the_longest_time_makes_room(folder: Path) -> None:
    prefixes = Prefixes(4500, folder)
    for number in (1, 2, 3):
        add(prefixes, number)
    entry = prefixes.find(name(1))
    assert entry is not None
    prefixes.use(entry, LABEL.video)
    add(prefixes, 4)
    assert numbers(prefixes) == [1, 3, 4]


def test_what_is_larger_than_the_budget_leaves_the_others_alone(folder: Path) -> None:
    prefixes = Prefixes(3000, folder)
    add(prefixes, 1)
    assert not add(prefixes, 2, 3001)
    assert numbers(prefixes) == [1]


def test_what_turns_out_larger_than_the_budget_is_not_kept(folder: Path) -> None:
    prefixes = Prefixes(3000, folder)
    assert not prefixes.add(name(1), LABEL, FACTS, content(4000), 100)
    assert list(folder.iterdir()) == []


def test_a_budget_that_has_shrunk_holds_from_the_next_entry_on(folder: Path) -> None:
    for number in (1, 2, 3):
        add(Prefixes(folder=folder), number)
    add(Prefixes(1500, folder), 4)
    assert numbers(Prefixes(folder=folder)) == [4]


def test_a_clip_that_was_moved_is_listed_where_it_was_seen_last(folder: Path) -> None:
    prefixes = Prefixes(folder=folder)
    add(prefixes, 1)
    (entry,) = prefixes.entries()
    prefixes.use(entry, "/clips/b.mp4")
    assert prefixes.entries()[0].label.video == "/clips/b.mp4"
    assert sorted(path.name for path in entry.folder.iterdir()) == [
        "entry.json",
        "frames.json",
        "kv",
    ]


@pytest.mark.parametrize(
    "label",
    [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000, b'{"format": 2}', b'{"format": 1}'],
)
def test_a_folder_with_a_damaged_label_is_removed(folder: Path, label: bytes) -> None:
    prefixes = Prefixes(folder=folder)
    add(prefixes, 1)
    (folder / name(1) / "entry.json").write_bytes(label)
    assert prefixes.entries() == []
    assert prefixes.find(name(1)) is None
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("video", 3),
        ("tokens", "many"),
        ("tokens", 10**12),
        ("tokens", True),
        ("frames", 10**400),
        ("start", "0"),
        ("start", float("nan")),
        ("end", float("inf")),
        ("end", -1),
        ("used", 3),
    ],
)
def test_a_label_of_wrong_kinds_is_damaged(folder: Path, field: str, value: object) -> None:
    prefixes = Prefixes(folder=folder)
    add(prefixes, 1)
    path = folder / name(1) / "entry.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    assert prefixes.entries() == []


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


ODD_FILES = [endless, loop, os.mkfifo, Path.mkdir]


@pytest.mark.parametrize("make", ODD_FILES)
@pytest.mark.parametrize("file", ["entry.json", "frames.json", "kv"])
def test_an_entry_with_an_odd_file_is_dropped_at_once(
    folder: Path, file: str, make: Callable[[Path], None]
) -> None:
    prefixes = Prefixes(folder=folder)
    add(prefixes, 1)
    (folder / name(1) / file).unlink()
    make(folder / name(1) / file)
    assert prefixes.find(name(1)) is None
    assert list(folder.iterdir()) == []
    assert add(prefixes, 1)


@pytest.mark.parametrize("make", ODD_FILES)
def test_an_odd_file_in_the_place_of_an_entry_makes_way(
    folder: Path, make: Callable[[Path], None]
) -> None:
    folder.mkdir()
    make(folder / name(1))
    prefixes = Prefixes(folder=folder)
    assert prefixes.find(name(1)) is None
    assert add(prefixes, 1)
    assert len(prefixes.entries()) == 1


def test_a_label_longer_than_any_is_not_read(folder: Path) -> None:
    prefixes = Prefixes(folder=folder)
    add(prefixes, 1)
    path = folder / name(1) / "entry.json"
    os.truncate(path, 1 << 40)
    assert prefixes.find(name(1)) is None


def test_an_entry_is_added_without_opening_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefixes = Prefixes(5000, folder)
    for number in (1, 2, 3):
        add(prefixes, number)
    with monkeypatch.context() as patch:
        patch.setattr(prefixes_module, "read_object", None)
        assert prefixes.add(name(4), LABEL, FACTS, content(1500), 2000)
    assert numbers(prefixes) == [2, 3, 4]


def test_the_newest_entries_are_listed_without_reading_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefixes = Prefixes(folder=folder)
    for number in (1, 2, 3):
        add(prefixes, number)
    read: list[Path] = []
    real = prefixes_module.read_object
    monkeypatch.setattr(
        prefixes_module, "read_object", lambda path, most: read.append(path) or real(path, most)
    )
    assert [entry.folder.name for entry in prefixes.entries(2)] == [name(3), name(2)]
    assert len(read) == 2
    assert prefixes.count == 3


def test_damaged_entries_go_when_another_comes(folder: Path) -> None:
    prefixes = Prefixes(folder=folder)
    add(prefixes, 1)
    (folder / name(1) / "kv").unlink()
    add(prefixes, 2)
    assert [path.name for path in folder.iterdir()] == [name(2)]


def test_files_of_others_are_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    prefixes = Prefixes(10_000, folder)
    add(prefixes, 1)
    assert prefixes.clear()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_write_that_fails_leaves_nothing(folder: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with pytest.raises(OSError, match="No space left"):
        Prefixes(folder=folder).add(name(1), LABEL, FACTS, fail, 100)
    assert list(folder.iterdir()) == []


def test_a_disk_that_is_nearly_full_is_not_filled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder.parent)._replace(free=999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="No space left"):
        add(Prefixes(folder=folder), 1)


def test_what_was_written_meanwhile_by_another_process_stays(folder: Path) -> None:
    prefixes = Prefixes(folder=folder)

    def write(path: Path) -> None:
        content(1000)(path)
        add(Prefixes(folder=folder), 1, 500)

    assert prefixes.add(name(1), LABEL, FACTS, write, 1000)
    (entry,) = prefixes.entries()
    assert entry.kv.stat().st_size == 500
    assert len(list(folder.iterdir())) == 1


def test_an_entry_that_is_removed_stays_readable_for_who_has_it_open(folder: Path) -> None:
    prefixes = Prefixes(folder=folder)
    add(prefixes, 1)
    (entry,) = prefixes.entries()
    with entry.kv.open("rb") as file:
        assert prefixes.remove(entry.folder)
        assert file.read() == b"x" * 1000


def test_only_what_was_begun_long_ago_is_taken_for_abandoned(folder: Path) -> None:
    fresh, old = (folder / f"{name(7)}.{part}.partial" for part in ("fresh", "old"))
    fresh.mkdir(parents=True)
    old.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)
    add(Prefixes(folder=folder), 1)
    assert sorted(folder.iterdir()) == sorted((folder / name(1), fresh))


def test_clearing_takes_what_was_begun_too(folder: Path) -> None:
    prefixes = Prefixes(folder=folder)
    add(prefixes, 1)
    (folder / f"{name(2)}.new.partial").mkdir()
    assert prefixes.clear()
    assert list(folder.iterdir()) == []
    assert prefixes.bytes == 0


def test_no_folder_is_an_empty_one(folder: Path) -> None:
    prefixes = Prefixes(folder=folder)
    assert (prefixes.entries(), prefixes.bytes, prefixes.clear()) == ([], 0, True)
    assert not folder.exists()


WRITER = """
import sys
from pathlib import Path
from pandacli.prefix_cache.disk import Label, Prefixes, entry_name
prefixes = Prefixes(30_000, Path(sys.argv[1]))
label = Label("/clips/a.mp4", None, None, 8, "tiny", "none", "torch", 265)
for turn in range(60):
    number = turn % 7
    name = entry_name({"clip": number}, {})
    entry = prefixes.find(name)
    if entry is None:
        prefixes.add(name, label, {}, lambda path: path.write_bytes(bytes([number]) * 6000), 6000)
    else:
        prefixes.use(entry, f"/clips/{sys.argv[2]}.mp4")
        try:
            assert entry.kv.read_bytes() == bytes([number]) * 6000
        except FileNotFoundError:
            pass
"""


def test_processes_that_write_and_remove_the_same_do_not_disturb_each_other(folder: Path) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, folder, str(number)], stderr=subprocess.PIPE
        )
        for number in range(3)
    ]
    for process in running:
        assert process.communicate(timeout=120)[1] == b""
        assert process.returncode == 0
    prefixes = Prefixes(30_000, folder)
    assert 0 < prefixes.bytes <= 30_000
    assert all(entry.kv.stat().st_size == 6000 for entry in prefixes.entries())
    assert len(prefixes.entries()) == len(list(folder.iterdir()))


def test_prefixes_are_under_panda_home_where_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    assert prefixes_folder() == tmp_path / "prefixes"


def test_prefixes_are_else_in_the_place_for_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PANDA_HOME")
    monkeypatch.setattr(prefixes_module.platformdirs, "user_cache_path", tmp_path.joinpath)
    assert prefixes_folder() == tmp_path / "panda" / "prefixes"
