"""Questions in CSV; a bad row fails alone."""

import io
import itertools
from pathlib import Path

import pytest

from pandacli.batch.readers.entries import MOST_BYTES
from pandacli.batch.readers.questions import read_questions
from pandacli.batch.records import Record
from pandacli.errors import ClipError
from tests.batch.question_files import read, records, written


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_table_is_recognized(tmp_path: Path, delimiter: str, end: str) -> None:
    rows = [["video", "question", "from", "more"], ["a.mp4", '"Two\n\nlines?"', "1:00", "x"]]
    rows += [[], ["b.mp4", "What?", "", ""]]
    text = end.join(delimiter.join(row) for row in rows)
    one, two = records(written(tmp_path, "q", text))
    assert (one.line, one.question.splitlines()) == (2, ["Two", "", "lines?"])
    assert (one.start, two.start) == (60.0, None)
    assert (two.line, two.fields["more"]) == (6, "")


@pytest.mark.parametrize(
    "header",
    ["video_name,question", "video,Q", "Video,Question", " video , question ", "video_id,question"],
)
def test_columns_with_other_names_are_found(tmp_path: Path, header: str) -> None:
    [record] = records(written(tmp_path, "q.csv", f"{header}\na,b"))
    assert (record.video, record.question) == ("a", "b")


def test_table_of_pairs_has_both_questions(tmp_path: Path) -> None:
    found = records(written(tmp_path, "q.csv", "video_name,Q1,Q2\na,b,c"))
    assert [record.question for record in found] == ["b", "c"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"a,b,c", "a row of 3 cells under 2 columns"),
        (b"\xff,b", "not UTF-8"),
        (b'a,"b', "not a row of a table"),
        (b"a," + b"x" * 200_000, "not a row of a table"),
        (b"a,", "empty"),
        (b"a", "empty"),
        (b"x" * (MOST_BYTES + 1), "longer than 8 MB"),
    ],
    ids=itertools.count(),
)
def test_bad_row_fails_alone(row: bytes, message: str) -> None:
    with read_questions(io.BytesIO(b"video,question\na,b\n" + row)) as questions:
        (_, one), (line, two) = read(questions)
    assert isinstance(one, Record)
    assert line == 3
    assert isinstance(two, str)
    assert message in two


@pytest.mark.parametrize(
    ("rows", "good"),
    [
        (b'a,"b\nc,d\n\ne,f\n', [4, 6]),
        (b'a,"b\n' + b"c,d\n" * 50_000, [*range(4, 50_004)]),
        (b'a,"b\nc,d\n"e,f\ng,h\n', [4, 6]),
        (b'a,"b\nc,d\n\xff\ne,f\n', [4, 6]),
    ],
    ids=["to the end", "to the limit", "to another quote", "to a line that is not UTF-8"],
)
def test_unclosed_quote_rejects_only_its_line(rows: bytes, good: list[int]) -> None:
    with read_questions(io.BytesIO(b"video,question\na,b\n" + rows)) as questions:
        found = read(questions)
    assert [line for line, each in found if isinstance(each, Record)] == [2, *good]
    assert 3 in [line for line, each in found if isinstance(each, str)]


@pytest.mark.parametrize("text", ["", "a,b\nc,d", "video\na", "video,video,question\n", "\xff"])
def test_table_without_usable_header_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ClipError):
        read_questions(written(tmp_path, "q.csv", text), "csv")
