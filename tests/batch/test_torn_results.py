"""Repair of torn lines, and foreign files that are never changed."""

import random
from pathlib import Path

import pytest

from pandacli.batch.results_file import ResultsFile
from pandacli.errors import UsageError
from tests.batch.results_files import answer, done, failure, written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.answers.jsonl"


def test_torn_last_line_is_truncated_at_any_length(path: Path) -> None:
    first = written(path, answer(1))
    both = written(path, answer(2))
    for length in range(len(both)):
        path.write_bytes(both[:length])
        whole = both[: len(first)] if length + 1 >= len(first) else b""
        whole = both if length + 1 == len(both) else whole
        assert done(path) == [1, 2][: whole.count(b"\n")], length
        assert path.read_bytes() == whole, length


def test_missing_last_line_break_is_added(path: Path) -> None:
    before = written(path, answer(1))
    path.write_bytes(before[:-1])
    after = written(path, answer(2))
    assert after.startswith(before)
    assert done(path) == [1, 2]


@pytest.mark.parametrize("end", [b"\0" * 5000, b"\0\n", b'{"dig\0\0', b'{"digest": "00\0\n'])
def test_zeros_at_the_end_are_truncated(path: Path, end: bytes) -> None:
    before = written(path, answer(1))
    path.write_bytes(before + end)
    assert done(path) == [1]
    assert path.read_bytes() == before


def test_file_of_zeros_counts_as_empty(path: Path) -> None:
    path.write_bytes(b"\0" * 2_000_000)
    assert done(path) == []
    assert path.read_bytes() == b""


def test_zeros_between_lines_are_removed(path: Path) -> None:
    first = written(path, answer(1))
    second = written(path, answer(2)).removeprefix(first)
    path.write_bytes(first + b"\0" * 4096 + b'really?"}\n' + second)
    assert done(path) == [1, 2]
    assert path.read_bytes() == first + second


def test_failures_and_missing_line_break_are_repaired_together(path: Path) -> None:
    path.write_bytes(written(path, failure(1), answer(2))[:-1])
    written(path, answer(3))
    assert done(path) == [2, 3]


def test_random_damage_leaves_whole_lines_or_is_refused(path: Path) -> None:
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


@pytest.mark.parametrize(("left", "newline"), [(40, b""), (5, b""), (40, b"\n")])
def test_torn_line_in_the_middle_is_dropped_on_confirmation(
    path: Path, left: int, newline: bytes
) -> None:
    lines = written(path, *map(answer, range(4))).splitlines(keepends=True)
    torn = b"".join([lines[0], lines[1][:left] + newline, *lines[2:]])
    path.write_bytes(torn)
    with pytest.raises(UsageError, match=r"line 2 of .* is torn") as caught:
        done(path)
    assert f"sed -i 2d {path}" in str(caught.value.hint)
    assert path.read_bytes() == torn
    asked = []
    with ResultsFile(path, lambda line: not asked.append(line)) as answers:
        found = answers.done.tolist()
    assert asked == [2]
    assert found == ([0, 2, 3] if newline else [0, 3])
    assert done(path) == found


FOREIGN = {
    "text": b"my notes\n",
    "text without an end": b"my notes",
    "other lines": b'{"question": "why?"}\n',
    "other line without an end": b'{"question": "why?"}',
    "a torn line of others": b'{"question": "wh',
    "another digest": b'{"digest": "abc"}\n',
    "a digest in capitals": b'{"digest": "00000000000000AA"}\n',
    "a list": b"[1, 2]\n",
    "zeros before something": b"\0" * 2_000_000 + b"notes",
    "an empty line": b"\n",
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "pretty JSON": b'{\n  "digest": "0000000000000001"\n}\n',
    "nested": b'{"digest": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_foreign_file_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a results file of panda"):
        done(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [c for c in FOREIGN.values() if c.strip() and c[:1] != b"\0"],
    ids=lambda c: str(c[:12]),
)
def test_foreign_line_is_refused_and_kept(path: Path, content: bytes) -> None:
    mixed = written(path, answer(1)) + content
    path.write_bytes(mixed)
    with pytest.raises(UsageError, match="is not a results file of panda") as caught:
        done(path)
    assert "its line 2 is not one of panda's" in str(caught.value.hint)
    assert path.read_bytes() == mixed
