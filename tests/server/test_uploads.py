"""Uploads: the same content once, a budget, no file in use dropped, and no folder left behind."""

import base64
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pandacli.server import uploads as module
from pandacli.server.engine import BusyError
from pandacli.server.protocol import RequestError
from pandacli.server.uploads import Upload, Uploads


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders of uploads are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def uploads() -> Iterator[Uploads]:
    kept = Uploads(most=1000, budget=2500)
    yield kept
    kept.close()


def keep(uploads: Uploads, content: bytes, used: set[str] | None = None) -> Upload:
    with uploads.writer("clip.mp4", used) as writer:
        for start in range(0, len(content), 300):
            writer.write(content[start : start + 300])
        return writer.finish()


def data(content: bytes) -> str:
    return "data:video/mp4;base64," + base64.b64encode(content).decode()


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()} - {"lock"}


def test_a_file_is_kept_as_it_was_sent(uploads: Uploads, temporary: Path) -> None:
    content = random.Random(1).randbytes(999)
    upload = keep(uploads, content)
    assert upload.path.read_bytes() == content
    assert upload.path.parent.stat().st_mode & 0o077 == 0, "for this user only"
    assert upload.path.parent.parent == temporary
    assert uploads.get(upload.id) == upload
    assert upload.record["bytes"] == 999


def test_the_same_content_is_kept_once_however_it_comes(uploads: Uploads, temporary: Path) -> None:
    content = random.Random(2).randbytes(500)
    ids = {keep(uploads, content).id, uploads.from_base64(data(content)).id}
    ids |= {uploads.from_base64(data(content).partition(",")[2]).id, keep(uploads, content).id}
    assert len(ids) == len(uploads.list()) == len(files(temporary)) == 1


def test_base64_that_was_sent_before_is_not_decoded_again(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = uploads.from_base64(data(b"a" * 100))
    with monkeypatch.context() as patch:
        patch.setattr(base64, "b64decode", None)
        assert uploads.from_base64(data(b"a" * 100)) == first
    uploads.remove(first.id)
    assert uploads.from_base64(data(b"a" * 100)).path.read_bytes() == b"a" * 100


@pytest.mark.parametrize(
    "text",
    [
        *["data:video/mp4,abc", "data:;base64,%%%", "data:;base64,AAA", "*", "data:", "é" * 8],
        *["AAAA\nAAAA", "AA-_", "data:" + "x" * 300 + ";base64,AAAA", "data:;base64,", "\ud800"],
    ],
)
def test_base64_nonsense_is_refused_and_leaves_nothing(
    uploads: Uploads, temporary: Path, text: str
) -> None:
    with pytest.raises(RequestError) as caught:
        uploads.from_base64(text)
    assert (caught.value.status, caught.value.code) == (400, "invalid_video")
    assert not files(temporary)


def test_a_file_over_the_limit_or_empty_is_refused_and_leaves_nothing(
    uploads: Uploads, temporary: Path
) -> None:
    with pytest.raises(RequestError, match="larger than") as caught:
        keep(uploads, bytes(1001))
    assert caught.value.status == 413
    with pytest.raises(RequestError, match="empty"):
        keep(uploads, b"")
    assert not files(temporary)


def test_over_the_budget_the_files_used_longest_ago_are_dropped(uploads: Uploads) -> None:
    kept = [keep(uploads, bytes([number]) * 1000) for number in range(2)]
    uploads.get(kept[0].id)
    keep(uploads, b"x" * 1000)
    assert next(upload.id for upload in uploads.list()) == kept[0].id
    assert not kept[1].path.exists()
    with pytest.raises(RequestError) as caught:
        uploads.get(kept[1].id)
    assert (caught.value.status, caught.value.code) == (404, "file_not_found")


def test_a_file_in_use_is_never_dropped(uploads: Uploads) -> None:
    with uploads.using() as used, uploads.using() as other:
        first = keep(uploads, b"1" * 1000, used)
        second = uploads.from_base64(data(b"2" * 1000), other)
        with pytest.raises(BusyError):
            keep(uploads, b"3" * 1000)
        assert first.path.exists()
        assert second.path.exists()
        assert len(files(first.path.parent)) == 2
    third = keep(uploads, b"3" * 1000)
    assert third.path.exists()
    assert not first.path.exists()


def test_uploads_of_many_threads_stay_within_the_budget(uploads: Uploads, temporary: Path) -> None:
    faults: list[Exception] = []

    def work(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(40):
            with uploads.using() as used:
                try:
                    content = bytes([draw.randrange(12)]) * draw.randint(100, 1000)
                    upload = keep(uploads, content, used)
                    assert upload.path.read_bytes() == content
                except BusyError:
                    pass
                except Exception as fault:
                    faults.append(fault)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    held = sum(path.stat().st_size for path in temporary.rglob("file*"))
    assert held <= 2500
    assert len(files(temporary)) == len(uploads.list())


def test_a_full_disk_is_one_clear_error(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    with uploads.writer() as writer:
        writer._file.close()
        monkeypatch.setattr(writer, "_file", open("/dev/full", "wb", buffering=0))  # noqa: PTH123, SIM115
        with pytest.raises(RequestError, match="No space left") as caught:
            writer.write(bytes(10))
        assert caught.value.status == 507
    assert not files(temporary)


def test_the_folder_is_removed_at_the_end(temporary: Path) -> None:
    uploads = Uploads(0, 0)
    keep(uploads, b"1")
    uploads.close()
    assert [*temporary.iterdir()] == []


def test_what_a_killed_server_left_is_removed_by_the_next_and_of_a_running_one_nothing(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """if True:
        import sys, tempfile, time
        tempfile.tempdir = sys.argv[1]
        from pandacli.server.uploads import Uploads
        uploads = Uploads(0, 0)
        with uploads.writer() as writer:
            writer.write(b"1")
            writer.finish()
        print("ready", flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", program, str(temporary)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert started.stdout is not None
    assert started.stdout.readline() == b"ready\n"
    (folder,) = temporary.iterdir()
    monkeypatch.setattr(module, "_YOUNG", -1.0)
    Uploads(0, 0).close()
    assert files(folder), "its server runs"
    started.send_signal(signal.SIGKILL)
    started.wait()
    started.stdout.close()
    monkeypatch.setattr(module, "_YOUNG", 3600.0)
    Uploads(0, 0).close()
    assert folder.exists(), "it may not have its lock yet"
    monkeypatch.setattr(module, "_YOUNG", -1.0)
    Uploads(0, 0).close()
    assert not folder.exists()


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_a_link_named_as_a_folder_of_uploads_is_left(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = temporary / "kept"
    kept.mkdir()
    (kept / "file").write_bytes(b"1")
    (temporary / "panda-uploads-link").symlink_to(kept)
    monkeypatch.setattr(module, "_YOUNG", time.time() - 10**9)
    Uploads(0, 0).close()
    assert (kept / "file").exists()
