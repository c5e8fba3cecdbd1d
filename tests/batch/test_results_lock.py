"""One run at a time on a file of answers."""

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


def test_a_second_run_is_refused(path: Path) -> None:
    with (
        ResultsFile(path),
        pytest.raises(UsageError, match="is being written by another run of panda"),
    ):
        done(path)


def test_a_second_run_by_another_name_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with ResultsFile(path), pytest.raises(UsageError, match="another run of panda"):
        done(tmp_path / "link")


def test_a_refused_run_does_not_free_the_file(path: Path) -> None:
    with ResultsFile(path):
        for _ in range(2):
            with pytest.raises(UsageError):
                done(path)


def test_the_lock_goes_with_the_run(path: Path) -> None:
    written(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_lock_file_left_by_a_killed_run_is_no_obstacle(path: Path) -> None:
    path.with_name(f"{path.name}.lock").touch()
    assert done(path) == []


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("without_locks")
def test_a_second_run_is_refused_where_there_are_no_locks(path: Path) -> None:
    with ResultsFile(path), pytest.raises(UsageError, match="another run of panda") as caught:
        done(path)
    assert "delete" in str(caught.value.hint)


@pytest.mark.usefixtures("without_locks")
def test_nothing_is_left_where_there_are_no_locks(path: Path) -> None:
    written(path)
    assert list(path.parent.iterdir()) == [path]
