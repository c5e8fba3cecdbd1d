"""Paths of the output, and results written to a pipe."""

import errno
import io
import os
from pathlib import Path

import pytest

from pandacli.batch.job import choose_paths, refuse_same
from pandacli.batch.results_file import ResultsStream, writable_file
from pandacli.errors import ClipError, UsageError
from tests.batch.results_files import answer, written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.answers.jsonl"


def test_hard_link_to_the_questions_is_refused(path: Path, tmp_path: Path) -> None:
    path.write_text("{}")
    (tmp_path / "link").hardlink_to(path)
    with pytest.raises(UsageError, match="is the file of the questions"):
        refuse_same(tmp_path / "link", path, "questions")


def test_missing_file_is_compared_by_resolved_name(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(UsageError, match="is the file of the questions"):
        refuse_same(tmp_path / "link", path, "questions")


def test_another_file_is_accepted(path: Path, tmp_path: Path) -> None:
    refuse_same(path, tmp_path / "questions.jsonl", "questions")


@pytest.mark.parametrize("output", [".", "..", "/"])
@pytest.mark.parametrize("chosen", ["jsonl", "csv"])
def test_folder_as_output_is_a_usage_error(output: str, chosen: str) -> None:
    path, _ = choose_paths(output, "q.jsonl", chosen, (1, 1))
    assert path is not None
    with pytest.raises(UsageError, match="is a folder"):
        writable_file(path)


def test_stream_has_the_same_lines_as_a_file(path: Path) -> None:
    stream = io.BytesIO()
    ResultsStream(stream).write(answer(1))
    assert stream.getvalue() == written(path, answer(1))


class FailingStream(io.BytesIO):
    """A stream that cannot be flushed."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


def test_closed_pipe_is_a_broken_pipe_error() -> None:
    with pytest.raises(BrokenPipeError):
        ResultsStream(FailingStream(errno.EPIPE)).write(answer(1))


def test_stream_to_a_full_disk_is_a_clip_error() -> None:
    with pytest.raises(ClipError, match="cannot write the answers: No space left"):
        ResultsStream(FailingStream(errno.ENOSPC)).write(answer(1))
