"""The results file: durable writes, resuming, and lookup by digest."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pandacli.batch import log, results_file
from pandacli.batch.results_file import ResultsFile
from pandacli.errors import ClipError
from tests.batch.results_files import answer, done, failure, written

KILLED_WRITERS = Path(__file__).with_name("killed_writers.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.answers.jsonl"


def test_lines_are_ascii_json_with_the_digest_first(path: Path) -> None:
    assert written(path, answer(10, "Ägypten\n")) == (
        b'{"digest": "000000000000000a", "question": "really?", "answer": "\\u00c4gypten\\n"}\n'
    )


def test_line_is_in_the_file_when_write_returns(path: Path) -> None:
    with ResultsFile(path) as answers:
        answers.write(answer(1))
        assert path.read_bytes().endswith(b'"yes"}\n')


def test_line_is_written_in_one_call(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    write = os.write

    def counted(descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(descriptor, data)

    with ResultsFile(path) as answers, monkeypatch.context() as patch:
        patch.setattr(os, "write", counted)
        answers.write(answer(1, "x" * 100_000))
    assert sizes == [path.stat().st_size]


def test_resumes_an_earlier_run(path: Path) -> None:
    before = written(path, answer(1))
    assert written(path, answer(2)).startswith(before)
    assert done(path) == [1, 2]


def test_done_is_sorted_with_repetitions(path: Path) -> None:
    written(path, *map(answer, (2**64 - 1, 7, 2**64 - 1)))
    assert done(path) == [7, 2**64 - 1, 2**64 - 1]


def test_nothing_is_done_in_a_new_file(path: Path) -> None:
    assert done(path) == []


def test_reformatted_lines_are_recognised(path: Path) -> None:
    path.write_text('{"answer":"ja","digest":"0000000000000001"}\r\n')
    assert done(path) == [1]


def test_failures_do_not_count_as_done(path: Path) -> None:
    written(path, failure(1), answer(2), failure(3))
    assert done(path) == [2]


def test_failures_are_removed_on_resume(path: Path) -> None:
    whole = written(path, answer(2), answer(4))
    path.unlink()
    written(path, failure(1), answer(2), failure(3), answer(4), failure(5))
    assert written(path) == whole


def test_file_without_failures_is_not_rewritten(path: Path) -> None:
    written(path, answer(1))
    inode = path.stat().st_ino
    done(path)
    assert path.stat().st_ino == inode


def test_rewritten_file_keeps_its_permissions(path: Path) -> None:
    written(path, failure(1), answer(2))
    path.chmod(0o640)
    done(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_failed_rewrite_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(path, failure(1), answer(2))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results_file, "replace_durably", full)
    with pytest.raises(ClipError, match=r"the disk of .* is full"):
        done(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_symlink_stays_a_symlink(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    written(link, failure(1), answer(2))
    assert done(link) == [2]
    assert link.is_symlink()


def test_line_is_found_by_its_digest(path: Path) -> None:
    written(path, answer(1), answer(2, "no"))
    with ResultsFile(path) as answers:
        answers.write(answer(3, "maybe"))
        found = [answers.find(digest) for digest in (3, 2)]
    assert [line and line["answer"] for line in found] == ["maybe", "no"]


def test_lines_are_found_after_a_rewrite(path: Path) -> None:
    written(path, failure(1), answer(2, "two"), failure(3), answer(4, "four"))
    with ResultsFile(path) as answers:
        found = [answers.find(digest) for digest in (1, 2, 3, 4)]
    assert [line and line["answer"] for line in found] == [None, "two", None, "four"]


def test_failures_of_this_run_are_found(path: Path) -> None:
    with ResultsFile(path) as answers:
        answers.write(failure(1))
        found = answers.find(1)
    assert found == failure(1)


def test_find_steps_through_equal_digests(path: Path) -> None:
    with ResultsFile(path) as answers:
        for text in ("first", "second"):
            answers.write(answer(1, text))
        found = [answers.find(1) for _ in range(3)]
    assert [line and line["answer"] for line in found] == ["first", "second", "second"]


def test_repaired_last_line_can_be_found(path: Path) -> None:
    path.write_bytes(written(path, answer(1))[:-1])
    with ResultsFile(path) as answers:
        answers.write(answer(2, "no"))
        assert answers.find(2) == answer(2, "no")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The size of the file at each fsync."""
    sizes: list[float] = []

    def fsync(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    return sizes


def test_exit_syncs_to_disk(path: Path, synced: list[float]) -> None:
    content = written(path, answer(1), answer(2))
    assert synced == [len(content)]


def test_sync_syncs_to_disk(path: Path, synced: list[float]) -> None:
    with ResultsFile(path) as answers:
        answers.write(answer(1))
        answers.sync()
        assert synced == [path.stat().st_size]


def test_background_sync_includes_the_last_line(
    path: Path, synced: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "SYNC_INTERVAL", 0.01)
    with ResultsFile(path) as answers:
        answers.write(answer(1))
        answers.write(answer(2))
        for _ in range(1000):
            if synced and synced[-1] == path.stat().st_size:
                break
            log.Event().wait(0.01)
        assert synced[-1] == path.stat().st_size


def test_failed_fsync_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(ClipError, match=r"cannot write .*Input/output error"):
        written(path, answer(1))


def test_sigkill_loses_no_line_and_leaves_none_torn(path: Path) -> None:
    command = [sys.executable, str(KILLED_WRITERS), str(path), "20"]
    acknowledged = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    kept = done(path)
    assert len(acknowledged) > 20
    assert set(acknowledged) <= set(kept)
    assert len(set(kept)) == len(kept)
    assert all(json.loads(line)["digest"] for line in path.read_bytes().splitlines())


def test_failure_before_the_first_result_leaves_no_file(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), ResultsFile(path):
        raise ZeroDivisionError
    assert list(path.parent.iterdir()) == []


def test_empty_file_of_the_user_is_kept(path: Path) -> None:
    path.touch()
    with pytest.raises(ZeroDivisionError), ResultsFile(path):
        raise ZeroDivisionError
    assert path.exists()
