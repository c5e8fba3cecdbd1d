"""PrefixStore on the disk as files: which go when there is no room, and who may write them."""

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

from pandacli.prefix_cache import store as store_module
from pandacli.prefix_cache.store import Metadata, PrefixStore, prefixes_folder

METADATA = Metadata("/clips/a.mp4", None, 12.5, 8, "tiny", "none", "torch", 265)
FACTS = {"indices": [0]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "prefixes"


def name(number: int) -> str:
    return f"{number:016x}-{0:032x}"


def write_bytes(size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(b"x" * size)

    return write


def add(store: PrefixStore, number: int, size: int = 1000) -> bool:
    store.add(name(number), METADATA, FACTS, write_bytes(size), size)
    entry = store.find(name(number))
    if entry:  # one second after the other
        os.utime(entry.folder / "entry.json", (1000 + number, 1000 + number))
    return entry is not None


def numbers(store: PrefixStore) -> list[int]:
    return [number for number in range(9) if store.find(name(number))]


def test_added_entry_is_found(folder: Path) -> None:
    add(PrefixStore(folder=folder), 1)
    entry = PrefixStore(folder=folder).find(name(1))
    assert entry is not None
    assert entry.metadata == METADATA
    assert entry.frames() == FACTS
    assert entry.kv.read_bytes() == b"x" * 1000
    assert entry.bytes > 1000


def test_clip_is_known_under_another_model_but_not_found(folder: Path) -> None:
    store = PrefixStore(folder=folder)
    add(store, 1)
    assert store.has_clip(f"{1:016x}")
    assert not store.has_clip(f"{2:016x}")
    assert store.find(f"{1:016x}-{1:032x}") is None


def test_least_recently_used_entry_is_evicted(folder: Path) -> None:
    store = PrefixStore(4500, folder)
    for number in (1, 2, 3):
        add(store, number)
    entry = store.find(name(1))
    assert entry is not None
    store.touch(entry, METADATA.video)
    add(store, 4)
    assert numbers(store) == [1, 3, 4]


def test_entry_larger_than_the_budget_evicts_nothing(folder: Path) -> None:
    store = PrefixStore(3000, folder)
    add(store, 1)
    assert not add(store, 2, 3001)
    assert numbers(store) == [1]


def test_entry_that_turns_out_larger_than_the_budget_is_removed(folder: Path) -> None:
    store = PrefixStore(3000, folder)
    store.add(name(1), METADATA, FACTS, write_bytes(4000), 100)
    assert list(folder.iterdir()) == []


def test_smaller_budget_applies_from_the_next_entry(folder: Path) -> None:
    for number in (1, 2, 3):
        add(PrefixStore(folder=folder), number)
    add(PrefixStore(1500, folder), 4)
    assert numbers(PrefixStore(folder=folder)) == [4]


def test_moved_clip_is_listed_at_its_last_path(folder: Path) -> None:
    store = PrefixStore(folder=folder)
    add(store, 1)
    (entry,) = store.entries()
    store.touch(entry, "/clips/b.mp4")
    assert store.entries()[0].metadata.video == "/clips/b.mp4"
    assert sorted(path.name for path in entry.folder.iterdir()) == [
        "entry.json",
        "frames.json",
        "kv",
    ]


@pytest.mark.parametrize(
    "label",
    [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000, b'{"format": 2}', b'{"format": 1}'],
)
def test_entry_with_damaged_metadata_is_removed(folder: Path, label: bytes) -> None:
    store = PrefixStore(folder=folder)
    add(store, 1)
    (folder / name(1) / "entry.json").write_bytes(label)
    assert store.entries() == []
    assert store.find(name(1)) is None
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
def test_metadata_of_wrong_types_is_damaged(folder: Path, field: str, value: object) -> None:
    store = PrefixStore(folder=folder)
    add(store, 1)
    path = folder / name(1) / "entry.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    assert store.entries() == []


def endless_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_loop(path: Path) -> None:
    path.symlink_to(path.name)


IRREGULAR_FILES = [endless_link, link_loop, os.mkfifo, Path.mkdir]


@pytest.mark.parametrize("make", IRREGULAR_FILES)
@pytest.mark.parametrize("file", ["entry.json", "frames.json", "kv"])
def test_entry_with_irregular_file_is_removed_without_hanging(
    folder: Path, file: str, make: Callable[[Path], None]
) -> None:
    store = PrefixStore(folder=folder)
    add(store, 1)
    (folder / name(1) / file).unlink()
    make(folder / name(1) / file)
    assert store.find(name(1)) is None
    assert list(folder.iterdir()) == []
    assert add(store, 1)


@pytest.mark.parametrize("make", IRREGULAR_FILES)
def test_irregular_file_in_the_place_of_an_entry_is_replaced(
    folder: Path, make: Callable[[Path], None]
) -> None:
    folder.mkdir()
    make(folder / name(1))
    store = PrefixStore(folder=folder)
    assert store.find(name(1)) is None
    assert add(store, 1)
    assert len(store.entries()) == 1


def test_oversized_metadata_is_not_read(folder: Path) -> None:
    store = PrefixStore(folder=folder)
    add(store, 1)
    path = folder / name(1) / "entry.json"
    os.truncate(path, 1 << 40)
    assert store.find(name(1)) is None


def test_adding_opens_no_other_entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PrefixStore(5000, folder)
    for number in (1, 2, 3):
        add(store, number)
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "read_object", None)
        store.add(name(4), METADATA, FACTS, write_bytes(1500), 2000)
    assert numbers(store) == [2, 3, 4]


def test_listing_the_newest_reads_no_other_entry(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PrefixStore(folder=folder)
    for number in (1, 2, 3):
        add(store, number)
    read: list[Path] = []
    real = store_module.read_object
    monkeypatch.setattr(
        store_module, "read_object", lambda path, most: read.append(path) or real(path, most)
    )
    assert [entry.folder.name for entry in store.entries(2)] == [name(3), name(2)]
    assert len(read) == 2
    assert store.count == 3


def test_adding_removes_damaged_entries(folder: Path) -> None:
    store = PrefixStore(folder=folder)
    add(store, 1)
    (folder / name(1) / "kv").unlink()
    add(store, 2)
    assert [path.name for path in folder.iterdir()] == [name(2)]


def test_foreign_files_are_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    store = PrefixStore(10_000, folder)
    add(store, 1)
    assert store.clear()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_failed_write_leaves_nothing(folder: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with pytest.raises(OSError, match="No space left"):
        PrefixStore(folder=folder).add(name(1), METADATA, FACTS, fail, 100)
    assert list(folder.iterdir()) == []


def test_nearly_full_disk_is_not_filled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder.parent)._replace(free=999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="No space left"):
        add(PrefixStore(folder=folder), 1)


def test_same_entry_written_by_another_process_stays(folder: Path) -> None:
    store = PrefixStore(folder=folder)

    def write(path: Path) -> None:
        write_bytes(1000)(path)
        add(PrefixStore(folder=folder), 1, 500)

    store.add(name(1), METADATA, FACTS, write, 1000)
    (entry,) = store.entries()
    assert entry.kv.stat().st_size == 500
    assert len(list(folder.iterdir())) == 1


def test_removed_entry_stays_readable_while_open(folder: Path) -> None:
    store = PrefixStore(folder=folder)
    add(store, 1)
    (entry,) = store.entries()
    with entry.kv.open("rb") as file:
        store.remove(entry.folder)
        assert not entry.folder.exists()
        assert file.read() == b"x" * 1000


def test_only_old_partial_folders_are_removed(folder: Path) -> None:
    fresh, old = (folder / f"{name(7)}.{part}.partial" for part in ("fresh", "old"))
    fresh.mkdir(parents=True)
    old.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)
    add(PrefixStore(folder=folder), 1)
    assert sorted(folder.iterdir()) == sorted((folder / name(1), fresh))


def test_clear_removes_partial_folders(folder: Path) -> None:
    store = PrefixStore(folder=folder)
    add(store, 1)
    (folder / f"{name(2)}.new.partial").mkdir()
    assert store.clear()
    assert list(folder.iterdir()) == []
    assert store.bytes == 0


def test_missing_folder_is_empty(folder: Path) -> None:
    store = PrefixStore(folder=folder)
    assert (store.entries(), store.bytes, store.clear()) == ([], 0, True)
    assert not folder.exists()


WRITER = """
import sys
from pathlib import Path
from pandacli.prefix_cache.store import Metadata, PrefixStore
store = PrefixStore(30_000, Path(sys.argv[1]))
metadata = Metadata("/clips/a.mp4", None, None, 8, "tiny", "none", "torch", 265)
for turn in range(60):
    number = turn % 7
    name = f"{number:016x}-{0:032x}"
    entry = store.find(name)
    if entry is None:
        store.add(name, metadata, {}, lambda path: path.write_bytes(bytes([number]) * 6000), 6000)
    else:
        store.touch(entry, f"/clips/{sys.argv[2]}.mp4")
        try:
            assert entry.kv.read_bytes() == bytes([number]) * 6000
        except FileNotFoundError:
            pass
"""


def test_concurrent_processes_do_not_disturb_each_other(folder: Path) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, folder, str(number)], stderr=subprocess.PIPE
        )
        for number in range(3)
    ]
    for process in running:
        assert process.communicate(timeout=120)[1] == b""
        assert process.returncode == 0
    store = PrefixStore(30_000, folder)
    assert 0 < store.bytes <= 30_000
    assert all(entry.kv.stat().st_size == 6000 for entry in store.entries())
    assert len(store.entries()) == len(list(folder.iterdir()))


def test_folder_is_under_panda_home_if_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    assert prefixes_folder() == tmp_path / "prefixes"


def test_folder_is_in_the_platform_cache_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PANDA_HOME")
    monkeypatch.setattr(store_module.platformdirs, "user_cache_path", tmp_path.joinpath)
    assert prefixes_folder() == tmp_path / "panda" / "prefixes"
