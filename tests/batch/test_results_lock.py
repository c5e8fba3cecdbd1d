"""The lock of a results file: one run at a time."""

import errno
import fcntl
from pathlib import Path

import pytest

from pandacli.batch.results_file import ResultsFile
from pandacli.errors import UsageError
from tests.batch.results_files import done, written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.answers.jsonl"


def test_second_run_is_refused(path: Path) -> None:
    with (
        ResultsFile(path),
        pytest.raises(UsageError, match="is being written by another run of panda"),
    ):
        done(path)


def test_second_run_through_a_symlink_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with ResultsFile(path), pytest.raises(UsageError, match="another run of panda"):
        done(tmp_path / "link")


def test_refused_run_keeps_the_lock_of_the_first(path: Path) -> None:
    with ResultsFile(path):
        for _ in range(2):
            with pytest.raises(UsageError):
                done(path)


def test_no_lock_file_is_left(path: Path) -> None:
    written(path)
    assert list(path.parent.iterdir()) == [path]


def test_stale_lock_file_is_ignored(path: Path) -> None:
    path.with_name(f"{path.name}.lock").touch()
    assert done(path) == []


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("without_locks")
def test_second_run_is_refused_without_file_locks(path: Path) -> None:
    with ResultsFile(path), pytest.raises(UsageError, match="another run of panda") as caught:
        done(path)
    assert "delete" in str(caught.value.hint)


@pytest.mark.usefixtures("without_locks")
def test_no_lock_file_is_left_without_file_locks(path: Path) -> None:
    written(path)
    assert list(path.parent.iterdir()) == [path]
