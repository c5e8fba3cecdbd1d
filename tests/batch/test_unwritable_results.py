"""Results that cannot be written: bad paths, full disks, and files deleted during a run."""

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from random import Random

import pytest

from pandacli.batch import results_file
from pandacli.batch.results_file import ResultsFile
from pandacli.errors import ClipError, UsageError
from tests.batch.results_files import answer, done, failure, written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.answers.jsonl"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small tmpfs; skips the test without the permission."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


def test_missing_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        done(tmp_path / "missing" / "file")


def test_file_in_place_of_the_folder_is_a_usage_error(path: Path) -> None:
    path.touch()
    with pytest.raises(UsageError, match="there is no folder"):
        done(path / "file")


def test_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        done(tmp_path)


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
def test_device_is_a_usage_error(device: str) -> None:
    with pytest.raises(UsageError, match="is no file on a disk"):
        done(Path(device))
    assert not Path(f"{device}.lock").exists()


def test_symlink_loop_is_a_clip_error(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(ClipError, match="cannot write"):
        done(path)


def test_too_long_name_is_a_clip_error(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"cannot write .*File name too long"):
        done(tmp_path / ("x" * 254))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_folder_without_permission_is_a_clip_error(path: Path) -> None:
    path.parent.chmod(0o500)
    with pytest.raises(ClipError, match=r"cannot write .*Permission denied"):
        done(path)


def test_read_only_disk_is_a_clip_error(mounted: Callable[[str], Path]) -> None:
    with pytest.raises(ClipError, match=r"cannot write .*Read-only file system"):
        done(mounted("ro") / "file")


def fill(path: Path) -> int:
    """Writes answers until the disk is full."""
    with ResultsFile(path) as answers:
        count = 0
        while True:
            try:
                answers.write(answer(count, "x" * 777))
            except ClipError:
                assert path.read_bytes().count(b"\n") == count
                raise
            count += 1


def test_full_disk_leaves_whole_lines(mounted: Callable[[str], Path]) -> None:
    path = mounted("size=64k") / "answers"
    with pytest.raises(ClipError, match=r"the disk of .* is full"):
        fill(path)
    assert path.read_bytes().endswith(b'"}\n')


def test_resumes_after_a_full_disk(mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=64k")
    (folder / "films").write_bytes(b"x" * 40_000)
    with pytest.raises(ClipError):
        fill(folder / "answers")
    before = done(folder / "answers")
    (folder / "films").unlink()
    written(folder / "answers", answer(1000))
    assert done(folder / "answers") == [*before, 1000]


def test_file_size_limit_leaves_whole_lines(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(ClipError, match=r"cannot write .*File too large"):
            fill(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes().endswith(b'"}\n')


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_partial_write_is_undone(path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    write = os.write

    def fails_halfway(descriptor: int, data: bytes) -> int:
        if len(data) < 60:
            raise OSError(number, os.strerror(number))
        return write(descriptor, data[:40])

    before = written(path, answer(1))
    with ResultsFile(path) as answers, monkeypatch.context() as patch:
        patch.setattr(os, "write", fails_halfway)
        with pytest.raises(ClipError):
            answers.write(answer(2))
    assert path.read_bytes() == before


def test_interrupted_write_is_undone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def interrupted(descriptor: int, data: bytes) -> int:
        write(descriptor, data[:40])
        raise KeyboardInterrupt

    with ResultsFile(path) as answers:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                answers.write(answer(1))
        answers.write(answer(2))
    assert done(path) == [2]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ENOSPC])
def test_closes_a_rewritten_file_that_cannot_be_reopened(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    random = Random(number)
    lines = [random.choice((answer, failure))(digest) for digest in range(random.randint(5, 30))]
    written(path, *lines, failure(99))  # so that it is rewritten, and opened again
    opened: list[FileIO] = []

    def open_once(file: Path, mode: str) -> FileIO:
        if opened:
            raise OSError(number, os.strerror(number))
        opened.append(FileIO(file, mode))
        return opened[0]

    monkeypatch.setattr(results_file, "FileIO", open_once)
    with pytest.raises(ClipError, match=r"cannot write|is full"):
        done(path)
    assert opened[0].closed


@pytest.fixture
def always_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_file, "CHECK_INTERVAL", 0.0)


def change_and_write(path: Path, change: Callable[[], object]) -> None:
    with ResultsFile(path) as answers:
        answers.write(answer(1))
        change()
        answers.write(answer(2))


@pytest.mark.usefixtures("always_check")
def test_deleted_file_is_a_clip_error(path: Path) -> None:
    with pytest.raises(ClipError, match="was deleted or replaced"):
        change_and_write(path, path.unlink)


@pytest.mark.usefixtures("always_check")
def test_deleted_folder_is_a_clip_error(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ClipError, match="was deleted or replaced"):
        change_and_write(folder / "file", lambda: shutil.rmtree(folder))


@pytest.mark.usefixtures("always_check")
def test_replaced_file_is_a_clip_error(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    with pytest.raises(ClipError, match="was deleted or replaced"):
        change_and_write(path, lambda: (tmp_path / "other").replace(path))


@pytest.mark.usefixtures("always_check")
def test_write_by_another_program_is_a_clip_error(path: Path) -> None:
    with pytest.raises(ClipError, match="was changed by another program"):
        change_and_write(path, lambda: path.write_text("other"))


def test_file_deleted_before_exit_is_a_clip_error(path: Path) -> None:
    def leave() -> None:
        with ResultsFile(path):
            path.unlink()

    with pytest.raises(ClipError, match="was deleted or replaced"):
        leave()


def test_error_inside_the_context_is_not_hidden(path: Path) -> None:
    def go_wrong() -> None:
        with ResultsFile(path):
            path.unlink()
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        go_wrong()
