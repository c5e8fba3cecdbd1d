"""The file of answers: what is written stays, what is torn is mended, what is not ours is left."""

import errno
import fcntl
import io
import json
import os
import random
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pandacli.batch import answers_file, steady_sync
from pandacli.batch.answers_file import AnswersFile, AnswersStream, refuse_same
from pandacli.errors import ClipError, UsageError

KILLING = Path(__file__).with_name("killing.py")


def answer(digest: int, text: str = "yes") -> dict[str, Any]:
    return {"question": "really?", "answer": text, "digest": f"{digest:016x}"}


def failure(digest: int) -> dict[str, Any]:
    return {"line": 3, "error": {"kind": "video", "message": "gone"}, "digest": f"{digest:016x}"}


def written(path: Path, *lines: dict[str, Any]) -> bytes:
    with AnswersFile(path) as answers:
        for line in lines:
            answers.write(line)
    return path.read_bytes()


def done(path: Path) -> list[int]:
    with AnswersFile(path) as answers:
        found: list[int] = answers.done.tolist()
        return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.answers.jsonl"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk in memory, where the tests may."""
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


# what is written


def test_lines_are_plain_json_with_the_digest_first(path: Path) -> None:
    assert written(path, answer(10, "Ägypten\n")) == (
        b'{"digest": "000000000000000a", "question": "really?", "answer": "\\u00c4gypten\\n"}\n'
    )


def test_a_line_is_in_the_file_when_write_returns(path: Path) -> None:
    with AnswersFile(path) as answers:
        answers.write(answer(1))
        assert path.read_bytes().endswith(b'"yes"}\n')


def test_a_line_is_written_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    write = os.write

    def counted(descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(descriptor, data)

    with AnswersFile(path) as answers, monkeypatch.context() as patch:
        patch.setattr(os, "write", counted)
        answers.write(answer(1, "x" * 100_000))
    assert sizes == [path.stat().st_size]


def test_an_earlier_run_is_gone_on_from(path: Path) -> None:
    before = written(path, answer(1))
    assert written(path, answer(2)).startswith(before)
    assert done(path) == [1, 2]


def test_done_is_sorted_with_repetitions(path: Path) -> None:
    written(path, *map(answer, (2**64 - 1, 7, 2**64 - 1)))
    assert done(path) == [7, 2**64 - 1, 2**64 - 1]


def test_a_new_file_has_nothing_done(path: Path) -> None:
    assert done(path) == []


def test_lines_another_program_has_rewritten_are_still_ours(path: Path) -> None:
    path.write_text('{"answer":"ja","digest":"0000000000000001"}\r\n')
    assert done(path) == [1]


# what failed is tried again


def test_failures_do_not_count_as_done(path: Path) -> None:
    written(path, failure(1), answer(2), failure(3))
    assert done(path) == [2]


def test_failures_are_taken_out_when_a_run_goes_on(path: Path) -> None:
    whole = written(path, answer(2), answer(4))
    path.unlink()
    written(path, failure(1), answer(2), failure(3), answer(4), failure(5))
    assert written(path) == whole


def test_a_file_without_failures_is_not_rewritten(path: Path) -> None:
    written(path, answer(1))
    inode = path.stat().st_ino
    done(path)
    assert path.stat().st_ino == inode


def test_a_rewritten_file_keeps_its_permissions(path: Path) -> None:
    written(path, failure(1), answer(2))
    path.chmod(0o640)
    done(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_rewrite_that_fails_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(path, failure(1), answer(2))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(answers_file, "settle", full)
    with pytest.raises(ClipError, match=r"the disk of .* is full"):
        done(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    written(link, failure(1), answer(2))
    assert done(link) == [2]
    assert link.is_symlink()


# torn lines


def test_a_torn_line_is_cut_off_wherever_it_was_torn(path: Path) -> None:
    first = written(path, answer(1))
    both = written(path, answer(2))
    for length in range(len(both)):
        path.write_bytes(both[:length])
        whole = both[: len(first)] if length + 1 >= len(first) else b""
        whole = both if length + 1 == len(both) else whole
        assert done(path) == [1, 2][: whole.count(b"\n")], length
        assert path.read_bytes() == whole, length


def test_a_line_that_lacks_only_its_end_gets_it(path: Path) -> None:
    before = written(path, answer(1))
    path.write_bytes(before[:-1])
    after = written(path, answer(2))
    assert after.startswith(before)
    assert done(path) == [1, 2]


@pytest.mark.parametrize("end", [b"\0" * 5000, b"\0\n", b'{"dig\0\0', b'{"digest": "00\0\n'])
def test_what_a_power_cut_leaves_at_the_end_is_cut_off(path: Path, end: bytes) -> None:
    before = written(path, answer(1))
    path.write_bytes(before + end)
    assert done(path) == [1]
    assert path.read_bytes() == before


def test_what_a_power_cut_leaves_between_lines_is_taken_out(path: Path) -> None:
    first = written(path, answer(1))
    second = written(path, answer(2)).removeprefix(first)
    path.write_bytes(first + b"\0" * 4096 + b'really?"}\n' + second)
    assert done(path) == [1, 2]
    assert path.read_bytes() == first + second


def test_any_damage_leaves_whole_lines_or_a_refusal(path: Path) -> None:
    chance = random.Random(17)
    sound = written(path, *(answer(n, "x" * n) for n in range(20)), failure(20))
    lines = set(sound.splitlines(keepends=True))
    for _ in range(300):
        damaged = bytearray(sound[: chance.randrange(len(sound) + 1)])
        for _ in range(chance.randrange(3)):
            if damaged:
                at = chance.randrange(len(damaged))
                damaged[at : at + chance.randrange(9)] = chance.randbytes(chance.randrange(4))
        path.write_bytes(damaged)
        try:
            kept = done(path)
        except UsageError:
            assert path.read_bytes() == damaged
            continue
        mended = path.read_bytes()
        assert len(mended.splitlines()) == len(kept)
        assert all(line in lines or line in damaged for line in mended.splitlines(keepends=True))
        assert done(path) == kept


# files of others


FOREIGN = {
    "text": b"my notes\n",
    "text without an end": b"my notes",
    "other lines": b'{"question": "why?"}\n',
    "other line without an end": b'{"question": "why?"}',
    "a torn line of others": b'{"question": "wh',
    "another digest": b'{"digest": "abc"}\n',
    "a digest in capitals": b'{"digest": "00000000000000AA"}\n',
    "a list": b"[1, 2]\n",
    "zeros": b"\0" * 100,
    "an empty line": b"\n",
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "pretty JSON": b'{\n  "digest": "0000000000000001"\n}\n',
    "nested": b'{"digest": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_files_of_others_are_refused_and_left(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is no answers file of panda"):
        done(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "content", [c for c in FOREIGN.values() if c.strip(b"\0\n")], ids=lambda c: str(c[:12])
)
def test_what_others_have_added_is_left(path: Path, content: bytes) -> None:
    mixed = written(path, answer(1)) + content
    path.write_bytes(mixed)
    with pytest.raises(UsageError, match="is no answers file of panda") as caught:
        done(path)
    assert "its line 2 is not one of panda's" in str(caught.value.hint)
    assert path.read_bytes() == mixed


# what cannot be written


def test_a_missing_folder_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        done(tmp_path / "missing" / "file")


def test_a_file_in_place_of_the_folder_is_wrong_usage(path: Path) -> None:
    path.touch()
    with pytest.raises(UsageError, match="there is no folder"):
        done(path / "file")


def test_a_folder_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        done(tmp_path)


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
def test_a_device_is_wrong_usage(device: str) -> None:
    with pytest.raises(UsageError, match="is no file on a disk"):
        done(Path(device))
    assert not Path(f"{device}.lock").exists()


def test_a_link_in_circles_cannot_be_written(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(ClipError, match="cannot write"):
        done(path)


def test_a_name_too_long_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"cannot write .*File name too long"):
        done(tmp_path / ("x" * 254))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_folder_that_may_not_be_written_is_said(path: Path) -> None:
    path.parent.chmod(0o500)
    with pytest.raises(ClipError, match=r"cannot write .*Permission denied"):
        done(path)


def test_a_read_only_disk_is_said(mounted: Callable[[str], Path]) -> None:
    with pytest.raises(ClipError, match=r"cannot write .*Read-only file system"):
        done(mounted("ro") / "file")


def fill(path: Path) -> int:
    """Writes answers until there is an error; returns how many were written."""
    with AnswersFile(path) as answers:
        count = 0
        while True:
            try:
                answers.write(answer(count, "x" * 777))
            except ClipError:
                assert path.read_bytes().count(b"\n") == count
                raise
            count += 1


def test_a_full_disk_keeps_whole_lines(mounted: Callable[[str], Path]) -> None:
    path = mounted("size=64k") / "answers"
    with pytest.raises(ClipError, match=r"the disk of .* is full"):
        fill(path)
    assert path.read_bytes().endswith(b'"}\n')


def test_a_run_goes_on_after_a_full_disk(mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=64k")
    (folder / "films").write_bytes(b"x" * 40_000)
    with pytest.raises(ClipError):
        fill(folder / "answers")
    before = done(folder / "answers")
    (folder / "films").unlink()
    written(folder / "answers", answer(1000))
    assert done(folder / "answers") == [*before, 1000]


def test_a_limit_on_the_size_keeps_whole_lines(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(ClipError, match=r"cannot write .*File too large"):
            fill(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes().endswith(b'"}\n')


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_half_a_line_is_taken_back(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write = os.write

    def fails_halfway(descriptor: int, data: bytes) -> int:
        if len(data) < 60:
            raise OSError(number, os.strerror(number))
        return write(descriptor, data[:40])

    before = written(path, answer(1))
    with AnswersFile(path) as answers, monkeypatch.context() as patch:
        patch.setattr(os, "write", fails_halfway)
        with pytest.raises(ClipError):
            answers.write(answer(2))
    assert path.read_bytes() == before


def test_an_interrupted_write_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def interrupted(descriptor: int, data: bytes) -> int:
        write(descriptor, data[:40])
        raise KeyboardInterrupt

    with AnswersFile(path) as answers:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                answers.write(answer(1))
        answers.write(answer(2))
    assert done(path) == [2]


# what happens to the file meanwhile


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_file, "LOOK_EVERY", 0.0)


def change_and_write(path: Path, change: Callable[[], object]) -> None:
    with AnswersFile(path) as answers:
        answers.write(answer(1))
        change()
        answers.write(answer(2))


@pytest.mark.usefixtures("watchful")
def test_a_deleted_file_is_noticed(path: Path) -> None:
    with pytest.raises(ClipError, match="was deleted or replaced"):
        change_and_write(path, path.unlink)


@pytest.mark.usefixtures("watchful")
def test_a_vanished_folder_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ClipError, match="was deleted or replaced"):
        change_and_write(folder / "file", lambda: shutil.rmtree(folder))


@pytest.mark.usefixtures("watchful")
def test_a_replaced_file_is_noticed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    with pytest.raises(ClipError, match="was deleted or replaced"):
        change_and_write(path, lambda: (tmp_path / "other").replace(path))


@pytest.mark.usefixtures("watchful")
def test_lines_of_another_program_are_noticed(path: Path) -> None:
    with pytest.raises(ClipError, match="was changed by another program"):
        change_and_write(path, lambda: path.write_text("other"))


def test_a_file_deleted_before_the_end_is_noticed_at_the_end(path: Path) -> None:
    def leave() -> None:
        with AnswersFile(path):
            path.unlink()

    with pytest.raises(ClipError, match="was deleted or replaced"):
        leave()


def test_what_went_wrong_inside_is_not_hidden_by_the_file(path: Path) -> None:
    def go_wrong() -> None:
        with AnswersFile(path):
            path.unlink()
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        go_wrong()


# on the disk


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The size of the file at each time that it was sent to the disk."""
    sizes: list[float] = []

    def fsync(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    return sizes


def test_all_is_on_the_disk_at_the_end(path: Path, synced: list[float]) -> None:
    content = written(path, answer(1), answer(2))
    assert synced == [len(content)]


def test_all_is_on_the_disk_when_asked_for(path: Path, synced: list[float]) -> None:
    with AnswersFile(path) as answers:
        answers.write(answer(1))
        answers.sync()
        assert synced == [path.stat().st_size]


def test_the_last_of_many_lines_does_not_wait_for_the_next(
    path: Path, synced: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steady_sync, "EVERY", 0.01)
    with AnswersFile(path) as answers:
        answers.write(answer(1))
        answers.write(answer(2))
        for _ in range(1000):
            if synced and synced[-1] == path.stat().st_size:
                break
            steady_sync.Event().wait(0.01)
        assert synced[-1] == path.stat().st_size


def test_a_disk_that_fails_later_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(ClipError, match=r"cannot write .*Input/output error"):
        written(path, answer(1))


# one run at a time


def test_a_second_run_is_refused(path: Path) -> None:
    with (
        AnswersFile(path),
        pytest.raises(UsageError, match="is being written by another run of panda"),
    ):
        done(path)


def test_a_second_run_by_another_name_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with AnswersFile(path), pytest.raises(UsageError, match="another run of panda"):
        done(tmp_path / "link")


def test_a_refused_run_does_not_free_the_file(path: Path) -> None:
    with AnswersFile(path):
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
    with AnswersFile(path), pytest.raises(UsageError, match="another run of panda") as caught:
        done(path)
    assert "delete" in str(caught.value.hint)


@pytest.mark.usefixtures("without_locks")
def test_nothing_is_left_where_there_are_no_locks(path: Path) -> None:
    written(path)
    assert list(path.parent.iterdir()) == [path]


# reading lines again


def test_a_line_is_found_by_its_digest(path: Path) -> None:
    written(path, answer(1), answer(2, "no"))
    with AnswersFile(path) as answers:
        answers.write(answer(3, "maybe"))
        found = [answers.find(digest) for digest in (3, 2)]
    assert [line and line["answer"] for line in found] == ["maybe", "no"]


def test_lines_are_found_after_a_rewrite(path: Path) -> None:
    written(path, failure(1), answer(2, "two"), failure(3), answer(4, "four"))
    with AnswersFile(path) as answers:
        found = [answers.find(digest) for digest in (1, 2, 3, 4)]
    assert [line and line["answer"] for line in found] == [None, "two", None, "four"]


def test_failures_of_this_run_are_found(path: Path) -> None:
    with AnswersFile(path) as answers:
        answers.write(failure(1))
        found = answers.find(1)
    assert found == failure(1)


def test_equal_digests_give_one_line_after_the_other_and_then_the_last(path: Path) -> None:
    with AnswersFile(path) as answers:
        for text in ("first", "second"):
            answers.write(answer(1, text))
        found = [answers.find(1) for _ in range(3)]
    assert [line and line["answer"] for line in found] == ["first", "second", "second"]


def test_a_file_mended_at_its_end_is_read_right(path: Path) -> None:
    path.write_bytes(written(path, answer(1))[:-1])
    with AnswersFile(path) as answers:
        answers.write(answer(2, "no"))
        assert answers.find(2) == answer(2, "no")


# kills


def test_kills_lose_nothing_and_leave_no_half_line(path: Path) -> None:
    command = [sys.executable, str(KILLING), str(path), "20"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    kept = done(path)
    assert len(told) > 20
    assert set(told) <= set(kept)
    assert len(set(kept)) == len(kept)
    assert all(json.loads(line)["digest"] for line in path.read_bytes().splitlines())


# the file of questions, and pipes


def test_the_questions_are_not_overwritten(path: Path, tmp_path: Path) -> None:
    path.write_text("{}")
    (tmp_path / "link").hardlink_to(path)
    with pytest.raises(UsageError, match="is the file of the questions"):
        refuse_same(tmp_path / "link", path)


def test_a_file_that_is_not_there_is_compared_by_name(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(UsageError, match="is the file of the questions"):
        refuse_same(tmp_path / "link", path)


def test_another_file_is_no_problem(path: Path, tmp_path: Path) -> None:
    refuse_same(path, tmp_path / "questions.jsonl")


def test_a_stream_has_the_same_lines(path: Path) -> None:
    stream = io.BytesIO()
    with AnswersStream(stream) as answers:
        answers.write(answer(1))
    assert stream.getvalue() == written(path, answer(1))


class FailingStream(io.BytesIO):
    """A stream that cannot be flushed."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


def test_a_reader_that_has_gone_is_not_our_error() -> None:
    with pytest.raises(BrokenPipeError):
        AnswersStream(FailingStream(errno.EPIPE)).write(answer(1))


def test_a_stream_to_a_full_disk_is_said() -> None:
    with pytest.raises(ClipError, match="cannot write the answers: No space left"):
        AnswersStream(FailingStream(errno.ENOSPC)).write(answer(1))
