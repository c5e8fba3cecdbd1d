"""Lines, JSON and CSV of a ranking."""

import os
from pathlib import Path

from pandacli.terminal.ranking import csv_lines, moment_record, ranking_lines
from pandacli.timeline.find import Moment

MOMENTS = [
    Moment(Path("clips/a.mp4"), 20.0, 30.0, 0.98765432),
    Moment(Path("long/name, with a comma.mp4"), None, None, 0.5),
    Moment(Path("b.mp4"), 62.5, None, 1e-9),
    Moment(Path(os.fsdecode(b"\xff\x1b]0;x\x07\n.mp4")), None, 3.0, 0.0),
]


def test_piped_lines_have_tabs_between_cells() -> None:
    assert ranking_lines(MOMENTS, aligned=False) == [
        "0.988\tclips/a.mp4\t0:20.0 - 0:30.0",
        "0.500\tlong/name, with a comma.mp4",
        "0.000\tb.mp4\t1:02.5 - end",
        "0.000\t\\xff\\x1b]0;x\\x07\\n.mp4\t0:00.0 - 0:03.0",
    ]


def test_lines_on_a_terminal_are_aligned() -> None:
    lines = ranking_lines([MOMENTS[0], MOMENTS[2]], aligned=True)
    assert lines == ["0.988  clips/a.mp4  0:20.0 - 0:30.0", "0.000  b.mp4        1:02.5 - end"]


def test_record_has_null_for_the_times_of_a_whole_file() -> None:
    assert moment_record(MOMENTS[1]) == {
        "video": "long/name, with a comma.mp4",
        "start": None,
        "end": None,
        "probability": 0.5,
    }


def test_csv_quotes_names() -> None:
    assert "".join(csv_lines(MOMENTS[:2])) == (
        "probability,video,start,end\n"
        "0.987654,clips/a.mp4,20.0,30.0\n"
        '0.5,"long/name, with a comma.mp4",,\n'
    )
